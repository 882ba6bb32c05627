//! Which columns a file has, and which columns its rows get from them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use hotpair_core::services::dataset::{Column, ColumnKind};

use crate::error::LoadError;
use crate::spec::{DatasetSpec, Unpivot};

/// The columns of a file and of the rows made from it.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The file, for messages.
    pub(crate) file: String,
    /// The file's columns, with the kinds to read them as.
    pub(crate) inputs: Vec<Column>,
    /// The rows' columns.
    pub(crate) outputs: Vec<Column>,
    /// The key's places among the outputs.
    pub(crate) key: Vec<usize>,
    pub(crate) shape: Shape,
}

/// How outputs come from inputs.
#[derive(Debug)]
pub(crate) enum Shape {
    /// One row per row, the same columns.
    AsIs,
    /// One row per row and turned column that is not null there. The outputs are the kept inputs,
    /// then the turned column's name, then its value.
    Unpivoted { kept: Vec<usize>, turned: Vec<usize> },
}

impl Layout {
    /// `found` are the file's columns with the kinds they seem to have.
    pub(crate) fn new(
        spec: &DatasetSpec,
        file: &str,
        found: Vec<Column>,
    ) -> Result<Layout, LoadError> {
        let mut layout = Layout {
            file: file.to_owned(),
            inputs: found,
            outputs: vec![],
            key: vec![],
            shape: Shape::AsIs,
        };
        layout.check_names()?;
        layout.override_kinds(spec)?;
        match &spec.unpivot {
            None => layout.outputs = layout.inputs.clone(),
            Some(unpivot) => layout.unpivot(spec, unpivot)?,
        }
        layout.find_key(spec)?;
        Ok(layout)
    }

    /// The type the columns are decoded as, one for each kind.
    pub(crate) fn input_schema(&self) -> SchemaRef {
        let field = |column: &Column| Field::new(&column.name, data_type(column.kind), true);
        Arc::new(Schema::new(self.inputs.iter().map(field).collect::<Vec<Field>>()))
    }

    /// The inputs that are key columns; of the outputs only the turned name can be one besides.
    pub(crate) fn key_inputs(&self) -> Vec<usize> {
        let input = |place: &usize| match &self.shape {
            Shape::AsIs => Some(*place),
            Shape::Unpivoted { kept, .. } => kept.get(*place).copied(),
        };
        self.key.iter().filter_map(input).collect()
    }

    fn check_names(&self) -> Result<(), LoadError> {
        let mut seen = BTreeSet::new();
        for (place, column) in self.inputs.iter().enumerate() {
            let what = if column.name.is_empty() {
                format!("column {} has no name", place + 1)
            } else if !seen.insert(&column.name) {
                format!("two columns are named `{}`", column.name)
            } else {
                continue;
            };
            return Err(LoadError::Header { file: self.file.clone(), what });
        }
        Ok(())
    }

    fn override_kinds(&mut self, spec: &DatasetSpec) -> Result<(), LoadError> {
        for (name, kind) in &spec.columns {
            if spec.unpivot.as_ref().is_some_and(|unpivot| unpivot.value == *name) {
                continue;
            }
            let place = self.input(name, "columns")?;
            self.inputs[place].kind = *kind;
        }
        Ok(())
    }

    fn unpivot(&mut self, spec: &DatasetSpec, unpivot: &Unpivot) -> Result<(), LoadError> {
        let kept: Result<Vec<usize>, LoadError> =
            unpivot.keep.iter().map(|name| self.input(name, "unpivot.keep")).collect();
        let kept = kept?;
        let turned: Vec<usize> =
            (0..self.inputs.len()).filter(|place| !kept.contains(place)).collect();
        let wrong = |what: String| LoadError::Specification { dataset: spec.name.clone(), what };
        if turned.is_empty() {
            return Err(wrong(format!("`unpivot.keep` keeps all columns of {}", self.file)));
        }
        let mut names: Vec<&str> = unpivot.keep.iter().map(String::as_str).collect();
        names.extend([unpivot.name.as_str(), unpivot.value.as_str()]);
        if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
            return Err(wrong("`unpivot` names one column twice".to_owned()));
        }
        if spec.key.contains(&unpivot.value) {
            return Err(wrong(format!("`{}` of `unpivot` can be no key", unpivot.value)));
        }
        let kinds = turned.iter().map(|place| self.inputs[*place].kind);
        let common = kinds.reduce(common_kind).expect("at least one column is turned");
        let value_kind = spec.columns.get(&unpivot.value).copied().unwrap_or(common);
        for place in &turned {
            self.inputs[*place].kind = value_kind;
        }
        self.outputs = kept.iter().map(|place| self.inputs[*place].clone()).collect();
        self.outputs.push(Column { name: unpivot.name.clone(), kind: ColumnKind::Text });
        self.outputs.push(Column { name: unpivot.value.clone(), kind: value_kind });
        self.shape = Shape::Unpivoted { kept, turned };
        Ok(())
    }

    fn find_key(&mut self, spec: &DatasetSpec) -> Result<(), LoadError> {
        let wrong = |what: String| LoadError::Specification { dataset: spec.name.clone(), what };
        if spec.key.is_empty() {
            return Err(wrong("`key` names no column".to_owned()));
        }
        for name in &spec.key {
            let place = self.place(&self.outputs, name, "key")?;
            if self.key.contains(&place) {
                return Err(wrong(format!("`key` names `{name}` twice")));
            }
            self.key.push(place);
        }
        Ok(())
    }

    fn input(&self, name: &str, setting: &'static str) -> Result<usize, LoadError> {
        self.place(&self.inputs, name, setting)
    }

    fn place(
        &self,
        columns: &[Column],
        name: &str,
        setting: &'static str,
    ) -> Result<usize, LoadError> {
        columns.iter().position(|column| column.name == name).ok_or_else(|| {
            let names = columns.iter().take(NAMES_SHOWN_MAX).map(|column| column.name.as_str());
            LoadError::UnknownColumn {
                file: self.file.clone(),
                column: name.to_owned(),
                setting,
                existing: names.collect::<Vec<&str>>().join(", "),
            }
        })
    }
}

/// The arrow type that values of a kind are decoded to.
pub(crate) fn data_type(kind: ColumnKind) -> DataType {
    match kind {
        ColumnKind::Boolean => DataType::Boolean,
        ColumnKind::Integer => DataType::Int64,
        ColumnKind::Float => DataType::Float64,
        ColumnKind::Text => DataType::Utf8,
        ColumnKind::Date => DataType::Date32,
        ColumnKind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
    }
}

fn common_kind(left: ColumnKind, right: ColumnKind) -> ColumnKind {
    let numeric = |kind| matches!(kind, ColumnKind::Integer | ColumnKind::Float);
    let temporal = |kind| matches!(kind, ColumnKind::Date | ColumnKind::Timestamp);
    if left == right {
        left
    } else if numeric(left) && numeric(right) {
        ColumnKind::Float
    } else if temporal(left) && temporal(right) {
        ColumnKind::Timestamp
    } else {
        ColumnKind::Text
    }
}

/// How many of a file's columns an error lists.
const NAMES_SHOWN_MAX: usize = 50;
