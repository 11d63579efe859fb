package catalog

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"
)

// querier is what *sql.DB and *sql.Tx have in common.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// one scans the one row of query into dest. No row is sql.ErrNoRows.
func (r Reader) one(ctx context.Context, what string, dest []any, query string, args ...any) error {
	return r.try(ctx, func() error {
		return failed(ctx, what, r.q.QueryRowContext(ctx, query, args...).Scan(dest...))
	})
}

// collect returns what scan makes of each row of query.
func collect[T any](ctx context.Context, r Reader, what string, scan func(*sql.Rows) (T, error), query string, args ...any) (all []T, err error) {
	err = r.try(ctx, func() error {
		all = nil
		return r.rows(ctx, what, func(rows *sql.Rows) error {
			one, err := scan(rows)
			if err == nil {
				all = append(all, one)
			}
			return err
		}, query, args...)
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// each runs query and calls scan for every row; for a row that it was called
// for already, perhaps, once more.
func (r Reader) each(ctx context.Context, what string, scan func(*sql.Rows) error, query string, args ...any) error {
	return r.try(ctx, func() error { return r.rows(ctx, what, scan, query, args...) })
}

func (r Reader) rows(ctx context.Context, what string, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := r.q.QueryContext(ctx, query, args...)
	if err != nil {
		return failed(ctx, what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return failed(ctx, what, err)
		}
	}
	return failed(ctx, what, rows.Err())
}

// try calls f again while there is no database, for as long as r has patience.
// What a transaction has written comes first.
func (r Reader) try(ctx context.Context, f func() error) error {
	if err := r.pending.flush(ctx); err != nil {
		return err
	}
	return insist(ctx, r.patience, isCut, f)
}

// insist calls f until it succeeds, fails with what trying again does not help
// against, or patience or ctx have ended.
func insist(ctx context.Context, patience time.Duration, again func(error) bool, f func() error) error {
	deadline := time.Now().Add(patience)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		err := f()
		if err == nil || !again(err) || ctx.Err() != nil || time.Now().Add(pause).After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// batch is how many values one statement asks for.
const batch = 256

// inBatches calls f with the placeholders, from $first on, and the arguments for
// some of values at a time.
func inBatches[T any](values []T, first int, f func(list string, args []any) error) error {
	for some := range slices.Chunk(values, batch) {
		args := make([]any, len(some))
		for i, value := range some {
			args[i] = value
		}
		if err := f(placeholders(first, len(args)), args); err != nil {
			return err
		}
	}
	return nil
}

// placeholders returns "$first, …" for n arguments.
func placeholders(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(first+i))
	}
	return b.String()
}
