//! Bodies of the fuzz targets. Each takes any bytes and panics only for a bug.

pub mod wire;
