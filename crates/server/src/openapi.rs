//! The OpenAPI document: what clients can send here, beyond which the protocols' own documents hold.

/// `GET /openapi.json`.
pub const DOCUMENT: &str = include_str!("../assets/openapi.json");

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn the_document_is_json_and_has_the_main_paths() {
        let document: Value = serde_json::from_str(super::DOCUMENT).unwrap();
        for path in [
            "/v1/chat/completions",
            "/v1/responses",
            "/v1/messages",
            "/v1/completions",
            "/health",
            "/metrics",
        ] {
            assert!(document["paths"][path].is_object(), "{path}");
        }
    }
}
