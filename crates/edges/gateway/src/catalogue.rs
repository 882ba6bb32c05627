//! The catalogue: the functions this node offers when it serves. Fixed once the node is configured;
//! what the node puts into the registry is this list, and what it answers to is this list.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hotpair_protocol::FunctionEntry;

use crate::function::Handler;
use crate::sidecar::Sidecar;

/// A function that can be called.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its number, unique.
    pub number: u32,
    /// The group of its GSV.
    pub group: String,
    /// The service of its GSV.
    pub service: String,
    /// The version of its GSV.
    pub version: String,
    /// Its name, unique within the GSV.
    pub name: String,
    /// Datasets without which it answers 308000008 or 308000011.
    pub needs: Vec<String>,
    /// What it does.
    pub does: Does,
}

/// What a function does.
#[derive(Clone)]
pub enum Does {
    /// What every node can.
    Builtin(Builtin),
    /// What the library's user wrote.
    Library(Arc<dyn Handler>),
    /// What a program beside the node does.
    Sidecar(Arc<Sidecar>),
}

impl fmt::Debug for Does {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(builtin) => write!(f, "{builtin:?}"),
            Self::Library(_) => write!(f, "Library"),
            Self::Sidecar(sidecar) => write!(f, "{sidecar:?}"),
        }
    }
}

/// The functions that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// 1001: a row.
    TableGet,
    /// 1002: a row becomes a value.
    TablePut,
    /// 1003: a row goes.
    TableDelete,
    /// 1004: a row becomes a value if nobody changed it.
    TableCompareAndPut,
    /// 1005: rows from a key on.
    TableScan,
    /// 1006: a number grows.
    TableAdd,
    /// 1101: the row with a key.
    DatasetGet,
    /// 1102: rows from a key on.
    DatasetScan,
    /// 1103: columns, key and size.
    DatasetDescribe,
    /// 1201: the list of functions.
    FunctionsList,
    /// 1901: the arguments.
    TestEcho,
    /// 1902: nothing, after a while.
    TestSleep,
}

impl Builtin {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::TableGet,
        Self::TablePut,
        Self::TableDelete,
        Self::TableCompareAndPut,
        Self::TableScan,
        Self::TableAdd,
        Self::DatasetGet,
        Self::DatasetScan,
        Self::DatasetDescribe,
        Self::FunctionsList,
        Self::TestEcho,
        Self::TestSleep,
    ];

    /// It as a function of group `hotpair`, version `1.0`.
    #[must_use]
    pub fn function(self) -> Registered {
        let (number, service, name) = match self {
            Self::TableGet => (1001, "table", "get"),
            Self::TablePut => (1002, "table", "put"),
            Self::TableDelete => (1003, "table", "delete"),
            Self::TableCompareAndPut => (1004, "table", "compare_and_put"),
            Self::TableScan => (1005, "table", "scan"),
            Self::TableAdd => (1006, "table", "add"),
            Self::DatasetGet => (1101, "dataset", "get"),
            Self::DatasetScan => (1102, "dataset", "scan"),
            Self::DatasetDescribe => (1103, "dataset", "describe"),
            Self::FunctionsList => (1201, "functions", "list"),
            Self::TestEcho => (1901, "test", "echo"),
            Self::TestSleep => (1902, "test", "sleep"),
        };
        Registered {
            number,
            group: "hotpair".to_owned(),
            service: service.to_owned(),
            version: "1.0".to_owned(),
            name: name.to_owned(),
            needs: Vec::new(),
            does: Does::Builtin(self),
        }
    }

    /// Whether only a session may call it, where users are configured.
    #[must_use]
    pub fn wants_session(self) -> bool {
        match self {
            Self::TableGet
            | Self::TablePut
            | Self::TableDelete
            | Self::TableCompareAndPut
            | Self::TableScan
            | Self::TableAdd
            | Self::DatasetGet
            | Self::DatasetScan
            | Self::DatasetDescribe => true,
            Self::FunctionsList | Self::TestEcho | Self::TestSleep => false,
        }
    }
}

/// Why functions make no catalogue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// Two have one number.
    #[error("functions {one} and {other} have the same number {number}")]
    SameNumber {
        /// The number.
        number: u32,
        /// `group/service/version:name` of one.
        one: String,
        /// And of the other.
        other: String,
    },
    /// Two have one name.
    #[error("functions {one} and {other} have the same name {name}")]
    SameName {
        /// `group/service/version:name`.
        name: String,
        /// The number of one.
        one: u32,
        /// And of the other.
        other: u32,
    },
}

/// Functions, found by number or by name.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    by_number: BTreeMap<u32, Registered>,
    number_by_name: BTreeMap<String, u32>,
}

impl Catalogue {
    /// The built-in functions.
    #[must_use]
    pub fn built_in() -> Self {
        Self::with_library([]).expect("built-in functions do not clash")
    }

    /// The built-in functions and these.
    pub fn with_library(
        functions: impl IntoIterator<Item = Registered>,
    ) -> Result<Self, CatalogueError> {
        Self::new(Builtin::ALL.map(Builtin::function).into_iter().chain(functions))
    }

    /// A catalogue of these functions.
    pub fn new(functions: impl IntoIterator<Item = Registered>) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        for function in functions {
            let (number, name) = (function.number, full_name(&function));
            if let Some(other) = catalogue.by_number.get(&number) {
                let other = full_name(other);
                return Err(CatalogueError::SameNumber { number, one: other, other: name });
            }
            if let Some(one) = catalogue.number_by_name.insert(name.clone(), number) {
                return Err(CatalogueError::SameName { name, one, other: number });
            }
            catalogue.by_number.insert(number, function);
        }
        Ok(catalogue)
    }

    /// The function with this number.
    #[must_use]
    pub fn by_number(&self, number: u32) -> Option<&Registered> {
        self.by_number.get(&number)
    }

    /// The function with this name within `group/service/version`.
    #[must_use]
    pub fn by_name(&self, gsv: &str, name: &str) -> Option<&Registered> {
        let number = self.number_by_name.get(&format!("{gsv}:{name}"))?;
        self.by_number.get(number)
    }

    /// All, by number.
    pub fn functions(&self) -> impl Iterator<Item = &Registered> {
        self.by_number.values()
    }

    /// All as lists show them, by number.
    #[must_use]
    pub fn entries(&self) -> Vec<FunctionEntry> {
        self.functions().map(entry).collect()
    }
}

fn full_name(function: &Registered) -> String {
    let Registered { group, service, version, name, .. } = function;
    format!("{group}/{service}/{version}:{name}")
}

fn entry(function: &Registered) -> FunctionEntry {
    FunctionEntry {
        number: function.number,
        group: function.group.clone(),
        service: function.service.clone(),
        version: function.version.clone(),
        name: function.name.clone(),
        needs: function.needs.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_by_number_and_by_name() {
        let catalogue = Catalogue::built_in();
        let echo = catalogue.by_number(1901).unwrap();
        assert!(matches!(echo.does, Does::Builtin(Builtin::TestEcho)));
        let found = catalogue.by_name("hotpair/dataset/1.0", "get").unwrap();
        assert_eq!(found.number, 1101);
        assert!(catalogue.by_name("hotpair/dataset/2.0", "get").is_none());
        assert!(catalogue.by_number(1).is_none());
        assert_eq!(catalogue.entries().len(), Builtin::ALL.len());
    }

    #[test]
    fn functions_that_clash_make_no_catalogue() {
        let echo = Builtin::TestEcho.function();
        let renumbered = Registered { number: 7, ..echo.clone() };
        let renamed = Registered { name: "other".into(), ..echo.clone() };
        let same_number = Catalogue::new([echo.clone(), renamed]).unwrap_err().to_string();
        assert!(same_number.contains("same number 1901"), "{same_number}");
        let same_name = Catalogue::new([echo, renumbered]).unwrap_err().to_string();
        assert!(same_name.contains("hotpair/test/1.0:echo"), "{same_name}");
    }
}
