//! Feeds one target with bytes that libFuzzer makes up: `HOTPAIR_FUZZ_TARGET=records hotpair-fuzz
//! crates/fuzz/corpus/records`. To be started by `make fuzz`.

#![no_main]

use std::sync::OnceLock;

use hotpair_fuzz::{Target, target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let chosen = CHOSEN.get_or_init(|| {
        let name =
            std::env::var("HOTPAIR_FUZZ_TARGET").expect("HOTPAIR_FUZZ_TARGET names a target");
        target(&name).unwrap_or_else(|| panic!("there is no target {name}"))
    });
    (chosen.run)(bytes);
});
