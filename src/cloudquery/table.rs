//! Tables as CloudQuery describes them: an Arrow schema whose metadata has the name and the flags.
//!
//! A field that is not nullable is NOT NULL. A flag is true where its text is exactly `true`; every key but the table's
//! name may be missing. Everything that is not understood is kept and written again.

use arrow::datatypes::{DataType, Field, Metadata, Schema};

use super::Error;

/// Metadata keys of a schema.
pub mod schema_keys {
    /// The table's name; always there.
    pub const NAME: &str = "cq:table_name";
    /// What it is, for people.
    pub const DESCRIPTION: &str = "cq:table_description";
    /// Its title, for people.
    pub const TITLE: &str = "cq:table_title";
    /// What its primary key is called.
    pub const CONSTRAINT_NAME: &str = "cq:extension:constraint_name";
    /// A JSON array, or `null`.
    pub const PERMISSIONS_NEEDED: &str = "cq:table_permissions_needed";
    /// A JSON array, or `null`.
    pub const SENSITIVE_COLUMNS: &str = "cq:table_sensitive_columns";
    /// `true` where the source continues it from a state.
    pub const INCREMENTAL: &str = "cq:extension:incremental";
    /// The name of its parent table.
    pub const DEPENDS_ON: &str = "cq:table_depends_on";
}

/// Metadata keys of a field.
pub mod field_keys {
    /// `true` for a column of the primary key.
    pub const PRIMARY_KEY: &str = "cq:extension:primary_key";
    /// `true` for a unique column.
    pub const UNIQUE: &str = "cq:extension:unique";
    /// `true` for a column that an incremental sync goes by.
    pub const INCREMENTAL: &str = "cq:extension:incremental";
    /// `true` for a column that `_cq_id` is made of.
    pub const PRIMARY_KEY_COMPONENT: &str = "cq:extension:primary_key_component";
    /// What a JSON column holds, as JSON.
    pub const TYPE_SCHEMA: &str = "cq:extension:type_schema";
    /// The name of an extension type.
    pub const EXTENSION_NAME: &str = "ARROW:extension:name";
    /// Its metadata: see [`super::Extension::metadata`].
    pub const EXTENSION_METADATA: &str = "ARROW:extension:metadata";
}

/// The columns that CloudQuery itself adds.
pub mod columns {
    /// A row's id.
    pub const CQ_ID: &str = "_cq_id";
    /// The id of the row that it belongs to.
    pub const CQ_PARENT_ID: &str = "_cq_parent_id";
    /// When the sync began that wrote a row.
    pub const CQ_SYNC_TIME: &str = "_cq_sync_time";
    /// Which source wrote it.
    pub const CQ_SOURCE_NAME: &str = "_cq_source_name";
    /// Which group of syncs wrote it.
    pub const CQ_SYNC_GROUP_ID: &str = "_cq_sync_group_id";
}

/// CloudQuery's own types, which travel as an Arrow type and a name in the field's metadata, in nested fields too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// 16 bytes.
    Uuid,
    /// JSON text, as bytes.
    Json,
    /// `address/prefix` as text, as bytes.
    Inet,
    /// The 6 or 8 bytes of a hardware address.
    Mac,
}

impl Extension {
    /// The extension type that a field is of, if any.
    pub fn of(field: &Field) -> Option<Self> {
        match field.metadata().get(field_keys::EXTENSION_NAME)?.as_str() {
            "uuid" => Some(Self::Uuid),
            "json" => Some(Self::Json),
            "inet" => Some(Self::Inet),
            "mac" => Some(Self::Mac),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Json => "json",
            Self::Inet => "inet",
            Self::Mac => "mac",
        }
    }

    /// What stands in the metadata beside the name.
    pub fn metadata(self) -> &'static str {
        match self {
            Self::Uuid => "uuid-serialized",
            Self::Json => "json-serialized",
            Self::Inet => "inet-serialized",
            Self::Mac => "mac-serialized",
        }
    }

    /// The Arrow type that it travels as.
    pub fn storage(self) -> DataType {
        match self {
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Json | Self::Inet | Self::Mac => DataType::Binary,
        }
    }
}

/// A column: an Arrow field, with its flags in its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    field: Field,
}

impl Column {
    /// A column of an Arrow type, nullable and without flags; all keys that a reader may expect are written.
    pub fn new(name: &str, data_type: DataType) -> Self {
        let keys = [
            (field_keys::PRIMARY_KEY, "false"),
            (field_keys::UNIQUE, "false"),
            (field_keys::INCREMENTAL, "false"),
            (field_keys::PRIMARY_KEY_COMPONENT, "false"),
            (field_keys::TYPE_SCHEMA, ""),
        ];
        Self { field: Field::new(name, data_type, true).with_metadata(Metadata::from(keys)) }
    }

    /// A column of one of CloudQuery's own types.
    pub fn extension(name: &str, extension: Extension) -> Self {
        let column = Self::new(name, extension.storage());
        column
            .with(field_keys::EXTENSION_NAME, extension.name())
            .with(field_keys::EXTENSION_METADATA, extension.metadata())
    }

    /// The column that a field is.
    pub fn from_field(field: &Field) -> Self {
        Self { field: field.clone() }
    }

    /// The same with one metadata key set.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        let mut metadata = self.field.metadata().clone();
        metadata.insert(key, value);
        self.field = self.field.with_metadata(metadata);
        self
    }

    /// The same as a column of the primary key, or not.
    #[must_use]
    pub fn with_primary_key(self, is: bool) -> Self {
        self.with(field_keys::PRIMARY_KEY, if is { "true" } else { "false" })
    }

    /// The same as a unique column, or not.
    #[must_use]
    pub fn with_unique(self, is: bool) -> Self {
        self.with(field_keys::UNIQUE, if is { "true" } else { "false" })
    }

    /// The same as NOT NULL, or not.
    #[must_use]
    pub fn with_not_null(mut self, is: bool) -> Self {
        self.field = self.field.with_nullable(!is);
        self
    }

    /// The field that it is.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.field.name()
    }

    /// Its Arrow type; see [`Extension::of`] for what it may mean.
    pub fn data_type(&self) -> &DataType {
        self.field.data_type()
    }

    /// Whether it may not be NULL.
    pub fn not_null(&self) -> bool {
        !self.field.is_nullable()
    }

    /// Whether it is part of the primary key.
    pub fn primary_key(&self) -> bool {
        self.is(field_keys::PRIMARY_KEY)
    }

    /// Whether it is unique.
    pub fn unique(&self) -> bool {
        self.is(field_keys::UNIQUE)
    }

    /// Whether an incremental sync goes by it.
    pub fn incremental_key(&self) -> bool {
        self.is(field_keys::INCREMENTAL)
    }

    /// Whether `_cq_id` is made of it.
    pub fn primary_key_component(&self) -> bool {
        self.is(field_keys::PRIMARY_KEY_COMPONENT)
    }

    fn is(&self, key: &str) -> bool {
        self.field.metadata().get(key).is_some_and(|text| text == "true")
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Everything else that its schema's metadata says, `cq:table_name` left out.
    pub metadata: Metadata,
    /// Its columns, in order.
    pub columns: Vec<Column>,
}

impl Table {
    /// A table of these columns, with all keys that a reader may expect.
    pub fn new(name: &str, columns: Vec<Column>) -> Self {
        let keys = [
            (schema_keys::DESCRIPTION, ""),
            (schema_keys::TITLE, ""),
            (schema_keys::CONSTRAINT_NAME, ""),
            (schema_keys::PERMISSIONS_NEEDED, "null"),
            (schema_keys::SENSITIVE_COLUMNS, "null"),
        ];
        Self { name: name.to_owned(), metadata: Metadata::from(keys), columns }
    }

    /// The table that a schema describes.
    ///
    /// # Errors
    /// [`Error::NoTableName`].
    pub fn from_schema(schema: &Schema) -> Result<Self, Error> {
        let mut metadata = schema.metadata().clone();
        let name = metadata.remove(schema_keys::NAME).filter(|name| !name.is_empty()).ok_or(Error::NoTableName)?;
        let columns = schema.fields().iter().map(|field| Column::from_field(field)).collect();
        Ok(Self { name, metadata, columns })
    }

    /// The schema that describes it.
    pub fn to_schema(&self) -> Schema {
        let fields: Vec<Field> = self.columns.iter().map(|column| column.field.clone()).collect();
        let mut metadata = self.metadata.clone();
        metadata.insert(schema_keys::NAME, self.name.clone());
        Schema::new_with_metadata(fields, metadata)
    }

    /// A column by its name, as it is written.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name() == name)
    }

    /// The names of the primary key's columns.
    pub fn primary_key(&self) -> Vec<&str> {
        self.columns.iter().filter(|column| column.primary_key()).map(Column::name).collect()
    }

    /// Its parent's name, if it has one.
    pub fn parent(&self) -> Option<&str> {
        self.metadata.get(schema_keys::DEPENDS_ON).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Whether the source continues it from a state.
    pub fn incremental(&self) -> bool {
        self.metadata.get(schema_keys::INCREMENTAL).is_some_and(|text| text == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go writes "false", others leave the key out; Python's "True" is nobody's word for it.
    #[test]
    fn a_flag_is_true_where_its_text_is_exactly_true() {
        for (text, expected) in
            [(Some("true"), true), (Some("false"), false), (Some("TRUE"), false), (Some("1"), false), (None, false)]
        {
            let field = Field::new("c", DataType::Int64, true);
            let metadata = |key: &str| text.map(|text| Metadata::from([(key, text)])).unwrap_or_default();
            let column = |key: &str| Column::from_field(&field.clone().with_metadata(metadata(key)));
            let found = [
                column(field_keys::PRIMARY_KEY).primary_key(),
                column(field_keys::UNIQUE).unique(),
                column(field_keys::INCREMENTAL).incremental_key(),
                column(field_keys::PRIMARY_KEY_COMPONENT).primary_key_component(),
                Table { name: "t".to_owned(), metadata: metadata(schema_keys::INCREMENTAL), columns: vec![] }
                    .incremental(),
            ];
            assert_eq!(found, [expected; 5], "{text:?}");
        }
    }

    #[test]
    fn nullability_is_the_field_s_and_only_the_name_must_be_there() {
        let fields = vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Int64, true)];
        let named = Schema::new_with_metadata(fields.clone(), Metadata::from([(schema_keys::NAME, "t")]));
        let table = Table::from_schema(&named).expect("a table");
        assert_eq!((table.columns[0].not_null(), table.columns[1].not_null()), (true, false));
        assert_eq!((table.name.as_str(), table.parent(), table.incremental()), ("t", None, false));
        for metadata in [Metadata::default(), Metadata::from([(schema_keys::NAME, "")])] {
            let nameless = Table::from_schema(&Schema::new_with_metadata(fields.clone(), metadata));
            assert!(matches!(nameless, Err(Error::NoTableName)));
        }
    }
}
