//! The fields of a picture, common to all APIs.
