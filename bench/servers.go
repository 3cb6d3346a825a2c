package main

import (
	"errors"
	"fmt"
	"testing"
)

// withServers runs a part that needs real servers, and ends them. Package servers is made for tests: what a server needs of a test,
// its messages and its end, it has here from a stage.
func withServers(do func(testing.TB) ([]row, error)) (rows []row, err error) {
	s := &stage{}
	defer s.leave()
	defer func() {
		switch failed := recover().(type) {
		case nil:
		case stageError:
			err = errors.Join(failed.error, err)
		default:
			panic(failed)
		}
	}()
	rows, err = do(s)
	return rows, errors.Join(append(s.errs, err)...)
}

// stage is as much of a testing.TB as package servers needs. Its methods are for one goroutine.
type stage struct {
	testing.TB // nil: what is not below is not called
	cleanups   []func()
	errs       []error
}

type stageError struct{ error }

func (s *stage) Helper()                   {}
func (s *stage) Cleanup(f func())          { s.cleanups = append(s.cleanups, f) }
func (s *stage) Errorf(f string, a ...any) { s.errs = append(s.errs, fmt.Errorf(f, a...)) }
func (s *stage) Fatalf(f string, a ...any) { panic(stageError{fmt.Errorf(f, a...)}) }
func (s *stage) Fatal(a ...any)            { panic(stageError{errors.New(fmt.Sprint(a...))}) }

func (s *stage) leave() {
	for n := len(s.cleanups) - 1; n >= 0; n-- {
		s.cleanups[n]()
	}
}
