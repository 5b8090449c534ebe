//! What has to hold.
