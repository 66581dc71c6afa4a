//! The configurations of the published releases, built in.
//!
//! Sizes and costs of a release can be told without its files. Keys that no part of the engine reads are
//! left out, so the texts are not byte for byte those of the repositories.

/// Repository, configuration.
const RELEASES: [(&str, &str); 17] = [
    ("deepseek-ai/DeepSeek-V4-Flash", include_str!("published/flash.json")),
    (
        "deepseek-ai/DeepSeek-V4-Flash-DSpark",
        include_str!("published/flash_dspark.json"),
    ),
    // The same tensors, configuration and code as -DSpark.
    (
        "deepseek-ai/DeepSeek-V4-Flash-0731",
        include_str!("published/flash_dspark.json"),
    ),
    (
        "deepseek-ai/DeepSeek-V4-Flash-Base",
        include_str!("published/flash_base.json"),
    ),
    ("deepseek-ai/DeepSeek-V4-Pro", include_str!("published/pro.json")),
    (
        "deepseek-ai/DeepSeek-V4-Pro-DSpark",
        include_str!("published/pro_dspark.json"),
    ),
    (
        "deepseek-ai/DeepSeek-V4-Pro-0813",
        include_str!("published/pro_dspark.json"),
    ),
    (
        "deepseek-ai/DeepSeek-V4-Pro-Base",
        include_str!("published/pro_base.json"),
    ),
    ("deepseek-ai/DeepSeek-V4.1-Flash", include_str!("published/v41.json")),
    ("deepseek-ai/DeepSeek-V3", include_str!("published/v3.json")),
    ("deepseek-ai/DeepSeek-V3-0324", include_str!("published/v3.json")),
    ("deepseek-ai/DeepSeek-R1", include_str!("published/v3.json")),
    ("deepseek-ai/DeepSeek-R1-0528", include_str!("published/v3.json")),
    ("deepseek-ai/DeepSeek-V3.1", include_str!("published/v31.json")),
    ("deepseek-ai/DeepSeek-V3.1-Terminus", include_str!("published/v31.json")),
    ("deepseek-ai/DeepSeek-V3.2-Exp", include_str!("published/v32.json")),
    ("deepseek-ai/DeepSeek-V3.2", include_str!("published/v32.json")),
];

/// The config.json of a release, by repository name with or without its owner, in any case.
///
/// ```
/// use cachalot_checkpoint::published;
/// assert!(published::config("deepseek-v4-flash").is_some());
/// assert_eq!(published::nearest("DeepSeek-V4-Flsh")[0], "deepseek-ai/DeepSeek-V4-Flash");
/// ```
pub fn config(name: &str) -> Option<&'static str> {
    let wanted = bare(name).to_lowercase();
    let owner_known = name.len() == bare(name).len() || owner(name).eq_ignore_ascii_case(owner(RELEASES[0].0));
    let (_, text) = RELEASES
        .iter()
        .find(|(release, _)| bare(release).to_lowercase() == wanted)?;
    owner_known.then_some(*text)
}

/// Why a repository of DeepSeek cannot be run, for those that bear the name of a model here and are another.
///
/// ```
/// use cachalot_checkpoint::published;
/// assert!(published::refusal("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B").is_some());
/// assert!(published::refusal("DeepSeek-R1").is_none());
/// ```
pub fn refusal(name: &str) -> Option<&'static str> {
    let bare = bare(name).to_lowercase();
    let is_other = ["deepseek-r1-distill-", "deepseek-r1-0528-qwen3-"]
        .iter()
        .any(|beginning| bare.starts_with(beginning));
    is_other.then_some(
        "it is a Qwen or Llama model trained on answers of R1, with other layers than DeepSeek's own; \
         deepseek-ai/DeepSeek-R1 is supported",
    )
}

/// Repository names of all releases that are built in.
pub fn names() -> impl Iterator<Item = &'static str> {
    RELEASES.iter().map(|(name, _)| *name)
}

/// All names, those that are spelled most like `name` first.
pub fn nearest(name: &str) -> Vec<&'static str> {
    nearest_of(name, names())
}

/// `names`, those that are spelled most like `name` first. Owners before a slash and capitals do not count.
pub fn nearest_of<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = bare(name).to_lowercase();
    let mut names: Vec<&str> = names.collect();
    names.sort_by_cached_key(|other| distance(&wanted, &bare(other).to_lowercase()));
    names
}

fn bare(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, bare)| bare)
}

fn owner(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(owner, _)| owner)
}

/// Edit distance between two texts, the first cut to a sensible length.
fn distance(left: &str, right: &str) -> usize {
    const CHARACTERS_MAX: usize = 100;
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().take(CHARACTERS_MAX).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + (a != *b) as usize;
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}
