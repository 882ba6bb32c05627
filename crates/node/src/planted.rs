//! Known bugs for the tests that must find them, chosen by `HOTPAIR_PLANTED_BUG`. Without the feature
//! `planted-bugs` nothing is looked at, and there is no bug to be had.

use hotpair_core::pair::planted::Planted;
use hotpair_core::tables::planted::PlantedInTables;

/// The bugs of this process: at most one of both.
pub(crate) struct Bugs {
    pub(crate) pair: Planted,
    pub(crate) tables: PlantedInTables,
}

/// The product: none.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) fn chosen() -> Bugs {
    Bugs { pair: Planted::NONE, tables: PlantedInTables::NONE }
}

/// The one that the environment names.
#[cfg(feature = "planted-bugs")]
pub(crate) fn chosen() -> Bugs {
    use hotpair_core::pair::planted::Bug;
    use hotpair_core::tables::planted::TablesBug;
    let mut bugs = Bugs { pair: Planted::NONE, tables: PlantedInTables::NONE };
    let Ok(name) = std::env::var("HOTPAIR_PLANTED_BUG") else { return bugs };
    tracing::warn!(bug = name, "this process has a planted bug");
    match TablesBug::ALL.iter().find(|(_, known)| *known == name) {
        Some((bug, _)) => bugs.tables = PlantedInTables::bug(*bug),
        // Looked at where it is: crates/drivers/sql.
        None if name == "store-fence-by-select" => {}
        None if name == "claim-without-sync" => bugs.pair = Planted::bug(Bug::SyncNotChecked),
        None => panic!("no planted bug is named {name:?}"),
    }
    bugs
}
