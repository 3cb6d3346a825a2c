package pabal

import "github.com/pabal-go/pabal/driver"

// What a driver.Save holds: each row and each cursor once.

// putRow replaces the row of the same id and key, or adds it.
func putRow(rows []driver.Row, row driver.Row) []driver.Row {
	for i := range rows {
		if rows[i].ID == row.ID && rows[i].CursorKey == row.CursorKey {
			rows[i] = row
			return rows
		}
	}
	return append(rows, row)
}

// addRow adds a row unless one of the same id and key is there.
func addRow(rows []driver.Row, row driver.Row) []driver.Row {
	for i := range rows {
		if rows[i].ID == row.ID && rows[i].CursorKey == row.CursorKey {
			return rows
		}
	}
	return append(rows, row)
}

func putCursor(cursors []driver.Cursor, cursor driver.Cursor) []driver.Cursor {
	for i := range cursors {
		if cursors[i].CursorKey == cursor.CursorKey {
			cursors[i] = cursor
			return cursors
		}
	}
	return append(cursors, cursor)
}

func addCursor(cursors []driver.Cursor, cursor driver.Cursor) []driver.Cursor {
	for i := range cursors {
		if cursors[i].CursorKey == cursor.CursorKey {
			return cursors
		}
	}
	return append(cursors, cursor)
}
