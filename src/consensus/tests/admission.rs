//! Forged and impossible messages.
