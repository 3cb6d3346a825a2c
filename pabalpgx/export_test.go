package pabalpgx

// SchemaVersion is the version that the package speaks.
const SchemaVersion = schemaVersion
