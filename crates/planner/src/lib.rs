//! Predicts what fits, how fast and at what cost, before anything is downloaded or bought.

pub mod calibration;
pub mod catalogue;
mod error;
pub mod fleet;
pub mod memory;
pub mod model;
pub mod plan;
pub mod precision;
pub mod published;
pub mod step;
pub mod svg;
pub mod time;
pub mod units;
pub mod validation;

pub use error::Error;
