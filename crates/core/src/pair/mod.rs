//! Who may serve.
