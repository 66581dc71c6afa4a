//! Predicts what fits, how fast and at what cost, before anything is downloaded or bought.
//!
//! | item | holds |
//! | --- | --- |
//! | [`model`] | models as weight matrices, attention layers and experts, from their configurations |
//! | [`catalogue`] | chips and systems, every figure with its source; what nobody published stays unknown |
//! | [`precision`], [`memory`] | bytes of weights in the formats of a chip, and what a device needs |
//! | [`step`], [`time`] | what a pass moves and computes for each class of operators, and how long that takes |
//! | [`plan`], [`fleet`] | the best way to spread a model over chips, and many chips |
//! | [`engine`] | this program on a machine whose ceilings were measured |
//! | [`published`], [`calibration`], [`validation`] | published results, the efficiencies fitted to some, the others predicted |
//! | [`report`], [`svg`], [`units`] | the page on Ascend, plots, numbers with units |
//!
//! Everything is arithmetic: this crate must not run a model, nor measure a machine.
//!
//! ```
//! use cachalot_planner::{catalogue::Catalogue, model, plan::{Goal, Machine, plan}};
//!
//! let catalogue = Catalogue::built_in();
//! let model = model::find("DeepSeek-V4-Flash")?;
//! let machine = Machine { catalogue: &catalogue, chip: catalogue.chip("950dt")?, chips: 2 };
//! let goal = Goal { context: 131_072, users: 8, ..Goal::default() };
//! let found = plan(&model, machine, &goal)?;
//! assert!(found.fits());
//! // A figure that needs one that is unknown is unknown as well.
//! let mlu590 = Machine { chip: catalogue.chip("mlu590")?, ..machine };
//! assert!(plan(&model, mlu590, &goal)?.decode.is_err());
//! # Ok::<(), cachalot_planner::Error>(())
//! ```

pub mod calibration;
pub mod catalogue;
pub mod engine;
mod error;
pub mod fleet;
pub mod memory;
pub mod model;
pub mod plan;
pub mod precision;
pub mod published;
pub mod report;
pub mod step;
pub mod svg;
pub mod time;
pub mod units;
pub mod validation;

pub use error::Error;
