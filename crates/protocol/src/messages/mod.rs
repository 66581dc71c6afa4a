pub(crate) fn parse(_body: &[u8], _limits: &crate::Limits) -> Result<crate::Call, crate::ProtocolError> {
    Err(crate::ProtocolError::new(crate::ErrorKind::NotFound, "not yet"))
}
pub(crate) mod response {
    pub(crate) use crate::chat_completions::response::ChatWriter as MessageWriter;
    #[allow(dead_code)]
    pub(crate) fn ping() -> crate::Frame {
        crate::Frame::Comment(String::new())
    }
}
