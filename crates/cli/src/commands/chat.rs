use clap::Args;
#[derive(Args, Debug)]
pub struct ChatArguments {}
pub fn run(_: &ChatArguments) -> Result<(), crate::error::Error> {
    Ok(())
}
