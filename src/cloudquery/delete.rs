//! Deletion by value: which rows of a table a DeleteRecord means, and those of other tables that hang on them.
//!
//! Groups are joined by AND, the predicates of a group by AND or OR; a group of none is true, and so is no group at all:
//! then every row is meant. A predicate is an equality; a null value means IS NULL.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::Field;

use super::proto::plugin;
use super::{Error, ipc};

/// Values of one deletion: SQLite takes no more parameters in one statement, and each is an Arrow record in memory.
const PREDICATES_MAX: usize = 32_766;

/// Rows to delete.
#[derive(Clone, Debug, PartialEq)]
pub struct DeleteRecord {
    /// The table that they are in.
    pub table: String,
    /// What all must be true of them.
    pub groups: Vec<Group>,
    /// Tables whose rows go with them, parents first: those whose `_cq_parent_id` is the `_cq_id` of a deleted row.
    pub relations: Vec<Relation>,
}

/// Predicates that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Whether one true predicate is enough; else all must be true.
    pub or: bool,
    /// The predicates; none is true.
    pub predicates: Vec<Predicate>,
}

/// An equality.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    /// The column that is compared.
    pub column: String,
    value: RecordBatch,
}

/// A table whose rows belong to those of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The table.
    pub table: String,
    /// Whose rows its rows belong to: the table of the deletion, or of a relation before this one.
    pub parent: String,
}

impl Predicate {
    /// An equality with the first value of a record's first column.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the record has no such value.
    pub fn new(column: &str, value: RecordBatch) -> Result<Self, Error> {
        if value.num_columns() == 0 || value.num_rows() == 0 {
            return Err(Error::Malformed(format!("the predicate on column {column:?} has no value")));
        }
        Ok(Self { column: column.to_owned(), value: value.slice(0, 1) })
    }

    /// The value, alone in an array.
    pub fn value(&self) -> &ArrayRef {
        self.value.column(0)
    }

    /// What the value is, with its extension type.
    pub fn field(&self) -> &Field {
        self.value.schema_ref().field(0)
    }

    /// Whether the rows without a value are meant.
    pub fn is_null(&self) -> bool {
        self.value().is_null(0)
    }

    fn decode(wire: &plugin::Predicate) -> Result<Self, Error> {
        if plugin::predicate::Operator::try_from(wire.operator).is_err() {
            return Err(Error::Malformed(format!(
                "the predicate on column {:?} has an unknown operator, {}",
                wire.column, wire.operator
            )));
        }
        let (_, records) = ipc::decode_records(&wire.record)?;
        // A batch of no rows before the one with the value is odd, but says the same.
        let value = records.into_iter().find(|record| record.num_rows() > 0);
        let value =
            value.unwrap_or_else(|| RecordBatch::new_empty(std::sync::Arc::new(arrow::datatypes::Schema::empty())));
        Self::new(&wire.column, value)
    }

    fn encode(&self) -> Result<plugin::Predicate, Error> {
        let value = self.value.project(&[0])?;
        Ok(plugin::Predicate {
            operator: plugin::predicate::Operator::Eq.into(),
            column: self.column.clone(),
            record: ipc::encode_record(&value)?,
        })
    }
}

impl Group {
    fn decode(wire: &plugin::PredicatesGroup) -> Result<Self, Error> {
        use plugin::predicates_group::GroupingType;
        let or = match GroupingType::try_from(wire.grouping_type) {
            Ok(GroupingType::And) => false,
            Ok(GroupingType::Or) => true,
            Err(_) => {
                let unknown = format!("predicates are grouped in an unknown way, {}", wire.grouping_type);
                return Err(Error::Malformed(unknown));
            }
        };
        let predicates = wire.predicates.iter().map(Predicate::decode).collect::<Result<_, _>>()?;
        Ok(Self { or, predicates })
    }

    fn encode(&self) -> Result<plugin::PredicatesGroup, Error> {
        use plugin::predicates_group::GroupingType;
        let grouping_type = if self.or { GroupingType::Or } else { GroupingType::And };
        let predicates = self.predicates.iter().map(Predicate::encode).collect::<Result<_, _>>()?;
        Ok(plugin::PredicatesGroup { grouping_type: grouping_type.into(), predicates })
    }
}

impl DeleteRecord {
    /// What a Write asks to delete.
    ///
    /// # Errors
    /// [`Error::Arrow`] and [`Error::Malformed`] where a predicate is none.
    pub fn from_write(wire: &plugin::write::MessageDeleteRecord) -> Result<Self, Error> {
        Self::decode(&wire.table_name, &wire.where_clause, &wire.table_relations)
    }

    /// What a source's Sync asks to delete.
    ///
    /// # Errors
    /// As [`Self::from_write`].
    pub fn from_sync(wire: &plugin::sync::MessageDeleteRecord) -> Result<Self, Error> {
        Self::decode(&wire.table_name, &wire.where_clause, &wire.table_relations)
    }

    /// The same, as Write carries it.
    ///
    /// # Errors
    /// [`Error::Arrow`] where a value cannot be written.
    pub fn to_write(&self) -> Result<plugin::write::MessageDeleteRecord, Error> {
        let (where_clause, table_relations) = self.encode()?;
        Ok(plugin::write::MessageDeleteRecord { table_name: self.table.clone(), where_clause, table_relations })
    }

    /// The same, as Sync carries it.
    ///
    /// # Errors
    /// As [`Self::to_write`].
    pub fn to_sync(&self) -> Result<plugin::sync::MessageDeleteRecord, Error> {
        let (where_clause, table_relations) = self.encode()?;
        Ok(plugin::sync::MessageDeleteRecord { table_name: self.table.clone(), where_clause, table_relations })
    }

    fn decode(
        table: &str,
        groups: &[plugin::PredicatesGroup],
        relations: &[plugin::TableRelation],
    ) -> Result<Self, Error> {
        let predicates = groups.iter().fold(0, |sum: usize, group| sum.saturating_add(group.predicates.len()));
        if predicates > PREDICATES_MAX {
            return Err(Error::Malformed(format!(
                "a deletion by {predicates} values, of at most {PREDICATES_MAX}; send several"
            )));
        }
        let groups = groups.iter().map(Group::decode).collect::<Result<_, _>>()?;
        let relation = |wire: &plugin::TableRelation| Relation {
            table: wire.table_name.clone(),
            parent: wire.parent_table.clone(),
        };
        Ok(Self { table: table.to_owned(), groups, relations: relations.iter().map(relation).collect() })
    }

    fn encode(&self) -> Result<(Vec<plugin::PredicatesGroup>, Vec<plugin::TableRelation>), Error> {
        let groups = self.groups.iter().map(Group::encode).collect::<Result<_, _>>()?;
        let relation = |relation: &Relation| plugin::TableRelation {
            table_name: relation.table.clone(),
            parent_table: relation.parent.clone(),
        };
        Ok((groups, self.relations.iter().map(relation).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn batch(name: &str, array: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([(name, array, true)]).expect("one column")
    }

    #[test]
    fn a_deletion_is_the_same_after_the_wire() {
        let id = Predicate::new("id", batch("x", Arc::new(Int64Array::from(vec![7, 8])))).expect("a value");
        assert_eq!(id.value().len(), 1, "only the first value counts");
        let none =
            Predicate::new("name", batch("name", Arc::new(StringArray::from(vec![None::<&str>])))).expect("null");
        assert!(none.is_null() && !id.is_null());
        let delete = DeleteRecord {
            table: "users".to_owned(),
            groups: vec![Group { or: true, predicates: vec![id, none] }, Group { or: false, predicates: Vec::new() }],
            relations: vec![Relation { table: "orders".to_owned(), parent: "users".to_owned() }],
        };
        assert_eq!(DeleteRecord::from_write(&delete.to_write().expect("encodes")).expect("decodes"), delete);
        assert_eq!(DeleteRecord::from_sync(&delete.to_sync().expect("encodes")).expect("decodes"), delete);
    }

    #[test]
    fn more_values_than_a_statement_takes_are_refused_before_they_are_read() {
        let junk = plugin::Predicate { record: bytes::Bytes::from_static(b"junk"), ..plugin::Predicate::default() };
        let group = |count| plugin::PredicatesGroup { grouping_type: 1, predicates: vec![junk.clone(); count] };
        let groups = vec![group(PREDICATES_MAX), group(1)];
        let wire = plugin::write::MessageDeleteRecord {
            table_name: "t".to_owned(),
            where_clause: groups,
            table_relations: Vec::new(),
        };
        let why = DeleteRecord::from_write(&wire).expect_err("refused").to_string();
        assert!(why.contains("32767 values"), "{why}");
    }

    #[test]
    fn a_predicate_without_a_value_or_of_an_unknown_kind_is_malformed() {
        let empty = ipc::encode_record(&batch("id", Arc::new(Int64Array::from(Vec::<i64>::new())))).expect("encodes");
        let one = ipc::encode_record(&batch("id", Arc::new(Int64Array::from(vec![1])))).expect("encodes");
        for (operator, record) in
            [(0, empty), (0, bytes::Bytes::from_static(b"junk")), (0, bytes::Bytes::new()), (9, one)]
        {
            let wire = plugin::Predicate { operator, column: "id".to_owned(), record };
            let failed = Predicate::decode(&wire);
            assert!(matches!(failed, Err(Error::Malformed(_) | Error::Arrow(_))), "{wire:?}: {failed:?}");
        }
    }
}
