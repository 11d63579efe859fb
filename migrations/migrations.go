// Package migrations embeds the catalog's schema, one folder of goose
// migrations per SQL dialect. A migration that was released is never edited:
// a change of schema is a new file with the next number, in every folder.
// README.md says which changes may ship together.
package migrations

import "embed"

// SQLite is the folder tree that holds sqlite/NNNNN_name.sql.
//
//go:embed sqlite/*.sql
var SQLite embed.FS

// Postgres is the folder tree that holds postgres/NNNNN_name.sql.
//
//go:embed postgres/*.sql
var Postgres embed.FS
