//! The bodies of the fuzz targets: plain functions over bytes, so that a test can replay a corpus.

pub mod log;
