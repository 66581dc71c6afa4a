//! Responses that are kept for `previous_response_id`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cachalot_protocol::History;
use serde_json::Value;

/// Kept responses, bounded in bytes; the oldest go first. A response is found only by the key that asked for it.
#[derive(Debug)]
pub struct ResponseStore {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<String, Response>,
    ids_by_age: BTreeMap<u64, String>,
    next_age: u64,
    byte_count: usize,
}

#[derive(Debug)]
struct Response {
    owner: Option<usize>,
    age: u64,
    byte_count: usize,
    history: History,
    body: Value,
}

impl ResponseStore {
    /// A store of at most `bytes_max`; 0 keeps nothing.
    pub fn new(bytes_max: usize) -> Self {
        ResponseStore {
            bytes_max,
            kept: Mutex::default(),
        }
    }

    /// Keeps a response. One that is larger than the store is not kept.
    pub fn insert(&self, id: String, owner: Option<usize>, history: History, body: Value) {
        let byte_count = history.byte_count() + body.to_string().len() + 2 * id.len();
        if byte_count > self.bytes_max {
            return;
        }
        let mut kept = self.lock();
        kept.remove(&id);
        let age = kept.next_age;
        kept.next_age += 1;
        kept.byte_count += byte_count;
        kept.ids_by_age.insert(age, id.clone());
        let response = Response {
            owner,
            age,
            byte_count,
            history,
            body,
        };
        kept.by_id.insert(id, response);
        while kept.byte_count > self.bytes_max {
            let Some((_, oldest)) = kept.ids_by_age.pop_first() else {
                return;
            };
            kept.remove(&oldest);
        }
    }

    /// The conversation of a response.
    pub fn history(&self, id: &str, owner: Option<usize>) -> Option<History> {
        self.lock().find(id, owner).map(|response| response.history.clone())
    }

    /// The body of a response.
    pub fn body(&self, id: &str, owner: Option<usize>) -> Option<Value> {
        self.lock().find(id, owner).map(|response| response.body.clone())
    }

    /// Forgets a response; whether there was one.
    pub fn remove(&self, id: &str, owner: Option<usize>) -> bool {
        let mut kept = self.lock();
        kept.find(id, owner).is_some() && kept.remove(id)
    }

    /// Bytes kept.
    pub fn byte_count(&self) -> usize {
        self.lock().byte_count
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn find(&self, id: &str, owner: Option<usize>) -> Option<&Response> {
        self.by_id.get(id).filter(|response| response.owner == owner)
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(response) = self.by_id.remove(id) else {
            return false;
        };
        self.ids_by_age.remove(&response.age);
        self.byte_count -= response.byte_count;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_keeps_owners_apart() {
        let store = ResponseStore::new(100);
        let body = Value::String("x".repeat(20));
        for id in ["a", "b", "c", "d", "e"] {
            store.insert(id.to_owned(), Some(0), History::default(), body.clone());
        }
        assert!(store.byte_count() <= 100);
        assert_eq!(store.body("a", Some(0)), None);
        assert_eq!(store.body("e", Some(0)), Some(body.clone()));
        assert_eq!(store.body("e", Some(1)), None);
        assert!(!store.remove("e", None));
        assert!(store.remove("e", Some(0)) && !store.remove("e", Some(0)));
        store.insert("f".to_owned(), None, History::default(), Value::String("x".repeat(200)));
        assert_eq!(store.body("f", None), None);
    }
}
