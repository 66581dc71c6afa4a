//! `GET /v1/models`, in one document that the clients of all protocols read.

use serde_json::{Value, json};

use crate::backend::ModelCard;

/// All names.
pub fn list(card: &ModelCard) -> Value {
    let data: Vec<Value> = names(card).map(|name| entry(card, name)).collect();
    json!({
        "object": "list",
        "first_id": data.first().map(|entry| entry["id"].clone()),
        "last_id": data.last().map(|entry| entry["id"].clone()),
        "has_more": false,
        "data": data,
        // Codex looks for its own catalogue here and takes its defaults for what is not in it.
        "models": [],
    })
}

/// One name, if there is such.
pub fn one(card: &ModelCard, name: &str) -> Option<Value> {
    is_served(card, name).then(|| entry(card, name))
}

/// Whether `name` is the model's own or an alias; an alias that ends with `*` stands for all names that begin so.
pub fn is_served(card: &ModelCard, name: &str) -> bool {
    let fits = |alias: &String| match alias.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => alias == name,
    };
    name == card.name || card.aliases.iter().any(fits)
}

fn names(card: &ModelCard) -> impl Iterator<Item = &str> {
    let aliases = card.aliases.iter().map(String::as_str);
    std::iter::once(card.name.as_str()).chain(aliases.filter(|alias| !alias.ends_with('*')))
}

fn entry(card: &ModelCard, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "type": "model",
        "created": card.created,
        "created_at": rfc3339(card.created),
        "owned_by": "cachalot",
        "display_name": name,
        "context_length": card.context,
        "max_model_len": card.context,
    })
}

/// Seconds since 1970 as `2026-11-23T22:00:00Z`.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted in years that begin in March, so that the leap day is the last one.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        // `date -u -d @N +%FT%TZ`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_471_199, "2026-11-23T21:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn aliases_may_end_with_a_star() {
        let card = ModelCard {
            name: "built-in".to_owned(),
            aliases: vec!["gpt-x".to_owned(), "claude-*".to_owned()],
            context: 1,
            created: 0,
        };
        for (name, served) in [
            ("built-in", true),
            ("gpt-x", true),
            ("claude-opus-9", true),
            ("gpt-xx", false),
        ] {
            assert_eq!(one(&card, name).is_some(), served, "{name}");
        }
        let listed = list(&card);
        let ids: Vec<&str> = listed["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["built-in", "gpt-x"]);
    }
}
