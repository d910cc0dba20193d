//! hydit: artifacts -> images.
#![warn(missing_docs)]
