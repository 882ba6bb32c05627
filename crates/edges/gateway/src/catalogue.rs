//! The catalogue: the functions this node offers when it serves. Fixed once the node is configured;
//! what the node puts into the registry is this list, and what it answers to is this list.

use std::collections::BTreeMap;

use hotpair_protocol::FunctionEntry;

/// A function that can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
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
    pub does: Builtin,
}

/// The functions that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
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
    pub const ALL: [Self; 6] = [
        Self::DatasetGet,
        Self::DatasetScan,
        Self::DatasetDescribe,
        Self::FunctionsList,
        Self::TestEcho,
        Self::TestSleep,
    ];

    /// It as a function of group `hotpair`, version `1.0`.
    #[must_use]
    pub fn function(self) -> Function {
        let (number, service, name) = match self {
            Self::DatasetGet => (1101, "dataset", "get"),
            Self::DatasetScan => (1102, "dataset", "scan"),
            Self::DatasetDescribe => (1103, "dataset", "describe"),
            Self::FunctionsList => (1201, "functions", "list"),
            Self::TestEcho => (1901, "test", "echo"),
            Self::TestSleep => (1902, "test", "sleep"),
        };
        Function {
            number,
            group: "hotpair".to_owned(),
            service: service.to_owned(),
            version: "1.0".to_owned(),
            name: name.to_owned(),
            needs: Vec::new(),
            does: self,
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
    by_number: BTreeMap<u32, Function>,
    number_by_name: BTreeMap<String, u32>,
}

impl Catalogue {
    /// The built-in functions.
    #[must_use]
    pub fn built_in() -> Self {
        Self::new(Builtin::ALL.map(Builtin::function)).expect("built-in functions do not clash")
    }

    /// A catalogue of these functions.
    pub fn new(functions: impl IntoIterator<Item = Function>) -> Result<Self, CatalogueError> {
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
    pub fn by_number(&self, number: u32) -> Option<&Function> {
        self.by_number.get(&number)
    }

    /// The function with this name within `group/service/version`.
    #[must_use]
    pub fn by_name(&self, gsv: &str, name: &str) -> Option<&Function> {
        let number = self.number_by_name.get(&format!("{gsv}:{name}"))?;
        self.by_number.get(number)
    }

    /// All, by number.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.by_number.values()
    }

    /// All as lists show them, by number.
    #[must_use]
    pub fn entries(&self) -> Vec<FunctionEntry> {
        self.functions().map(entry).collect()
    }
}

fn full_name(function: &Function) -> String {
    let Function { group, service, version, name, .. } = function;
    format!("{group}/{service}/{version}:{name}")
}

fn entry(function: &Function) -> FunctionEntry {
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
        assert_eq!(catalogue.by_number(1901).unwrap().does, Builtin::TestEcho);
        let found = catalogue.by_name("hotpair/dataset/1.0", "get").unwrap();
        assert_eq!(found.number, 1101);
        assert!(catalogue.by_name("hotpair/dataset/2.0", "get").is_none());
        assert!(catalogue.by_number(1).is_none());
        assert_eq!(catalogue.entries().len(), Builtin::ALL.len());
    }

    #[test]
    fn functions_that_clash_make_no_catalogue() {
        let echo = Builtin::TestEcho.function();
        let renumbered = Function { number: 7, ..echo.clone() };
        let renamed = Function { name: "other".into(), ..echo.clone() };
        let same_number = Catalogue::new([echo.clone(), renamed]).unwrap_err().to_string();
        assert!(same_number.contains("same number 1901"), "{same_number}");
        let same_name = Catalogue::new([echo, renumbered]).unwrap_err().to_string();
        assert!(same_name.contains("hotpair/test/1.0:echo"), "{same_name}");
    }
}
