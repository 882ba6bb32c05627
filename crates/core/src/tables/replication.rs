//! Master's and standby's side of keeping two stores the same.
