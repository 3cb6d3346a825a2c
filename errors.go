package pabal

import (
	"fmt"

	"github.com/pabal-go/pabal/driver"
)

// Errors that callers branch on, with errors.Is.
var (
	// ErrNoTransaction: Record was given nil, or a transaction that is over. Nothing was recorded.
	ErrNoTransaction = driver.ErrNoTransaction
	// ErrUnwatched: the transaction's connection does not come from a watched pool. Nothing was recorded.
	ErrUnwatched = driver.ErrUnwatched
	// ErrSchema: Pabal's tables are missing or of another version. The message names the command that mends it.
	ErrSchema = driver.ErrSchema
	// ErrSource: the store belongs to a source of another name.
	ErrSource = driver.ErrSource
)

// LimitError says which value exceeds which limit. Nothing was recorded.
type LimitError struct {
	Field  string // such as "key of order-pay-done", "payload of order-pay-done with its envelope"
	Unit   string // bytes, headers, events
	Limit  int
	Actual int
	Hint   string // the way out
}

func (e *LimitError) Error() string {
	s := fmt.Sprintf("%s: %d %s, at most %d", e.Field, e.Actual, e.Unit, e.Limit)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// within checks one length; what is called names the field only when it is needed.
func within(field, unit string, actual, limit int, hint string) error {
	if limit <= 0 || actual <= limit {
		return nil
	}
	return &LimitError{Field: field, Unit: unit, Limit: limit, Actual: actual, Hint: hint}
}
