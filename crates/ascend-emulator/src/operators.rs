//! The operators, from their documents: each plan checks types and shapes and gives the work of the second phase.

mod attention;
mod compressor;
mod dense;
mod elementwise;
mod experts;
mod rows;
mod streams;
