//! Tests of consensus.
mod runtime;
