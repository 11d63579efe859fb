package catalog

import (
	"context"
	"database/sql"
)

// pending is what a write transaction has to say to its database, and what it
// knows without asking. Each statement is a round trip while everybody waits for
// the head: so writes wait, too, until something is read that they may bear on,
// or for the commit, and go all at once; and what cannot change while the head
// is locked is asked for once.
type pending struct {
	tx         *sql.Tx
	send       func(context.Context, []statement) error
	prepared   map[string]*sql.Stmt // where each statement goes by itself
	statements []statement
	err        error // of a statement: nothing goes after it
	// log is what the transaction knows of the log; nil in one without the head.
	log *tail
}

// statement is a write that waits.
type statement struct {
	what  string // it is for, when it fails
	query string
	args  []any
	// refused is the error where the statement wrote nothing; nil: then all is well.
	refused error
}

// tail is the log from the head at which a transaction began, and what was read
// of what is before: that is nobody's to change.
type tail struct {
	start, head int64
	last        string // the record of the last entry that the transaction has added

	records map[string]bool
	states  map[string][]StateRow // as written
	before  map[string]old        // as of start
	hashes  map[int64][32]byte    // as written and read
	next    int64                 // position of the next hash; -1: not asked yet
	indexes map[int64]bool        // of entries that have a crate line
	lines   map[string]int64      // bytes of a crate's lines, as of start
	added   map[string]int64      // and what was added to them
}

// old is a value of before the transaction.
type old struct {
	value []byte
	there bool
}

// mostPending is how many statements wait at most, and mostKnown how many values
// are kept that were read.
const (
	mostPending = 1000
	mostKnown   = 20_000
)

func newTail(start int64) *tail {
	return &tail{
		start: start, head: start, next: -1,
		records: map[string]bool{}, states: map[string][]StateRow{}, before: map[string]old{}, hashes: map[int64][32]byte{},
		indexes: map[int64]bool{}, lines: map[string]int64{}, added: map[string]int64{},
	}
}

// write has s wait. An error may be that of an earlier one.
func (t *Tx) write(ctx context.Context, s statement) error {
	t.pending.statements = append(t.pending.statements, s)
	if len(t.pending.statements) < mostPending {
		return t.pending.err
	}
	return t.pending.flush(ctx)
}

// flush sends what waits; on nil, which is of a catalog that is not being
// written, there is nothing to send.
func (p *pending) flush(ctx context.Context) error {
	if p == nil {
		return nil
	}
	if p.err != nil || len(p.statements) == 0 {
		return p.err
	}
	statements := p.statements
	p.statements = nil
	p.err = p.send(ctx, statements)
	return p.err
}

// sendEach executes one statement after the other.
func (p *pending) sendEach(ctx context.Context, statements []statement) error {
	for _, s := range statements {
		prepared, err := p.prepare(ctx, s.query)
		if err != nil {
			return failed(ctx, s.what, err)
		}
		result, err := prepared.ExecContext(ctx, s.args...)
		if err != nil {
			return failed(ctx, s.what, err)
		}
		n, err := result.RowsAffected()
		if err != nil {
			return failed(ctx, s.what, err)
		}
		if n == 0 && s.refused != nil {
			return s.refused
		}
	}
	return nil
}

// prepare prepares a statement that is the transaction's, and ends with it.
func (p *pending) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if known := p.prepared[query]; known != nil {
		return known, nil
	}
	made, err := p.tx.PrepareContext(ctx, query)
	if err == nil {
		p.prepared[query] = made
	}
	return made, err
}

// state is the newest value of key as of before, if the transaction knows it.
func (l *tail) state(key string, before int64) (value []byte, there, known bool) {
	newest := int64(-1)
	for _, row := range l.states[key] {
		if row.Index < before && row.Index > newest {
			newest, value = row.Index, row.Value
		}
	}
	if newest >= 0 {
		return value, true, true
	}
	o, known := l.before[key]
	return o.value, o.there, known
}

// remember keeps the value of key of before the transaction.
func (l *tail) remember(key string, value []byte, there bool) {
	if len(l.before) >= mostKnown {
		clear(l.before)
	}
	l.before[key] = old{value, there}
}

// put notes that key has value from idx on; false: it has one from idx on already.
func (l *tail) put(key string, idx int64, value []byte) bool {
	for _, row := range l.states[key] {
		if row.Index == idx {
			return false
		}
	}
	l.states[key] = append(l.states[key], StateRow{Key: key, Index: idx, Value: value})
	return true
}

// tail is what r knows of the log where it is of a transaction that has the head
// and before is not behind that; nil otherwise.
func (r Reader) tail(before int64) *tail {
	if r.pending == nil || r.pending.log == nil || before < r.pending.log.start {
		return nil
	}
	return r.pending.log
}

// settled reads what the transaction's own writes do not bear on.
func (r Reader) settled() Reader {
	r.pending = nil
	return r
}

// knownState is State in a transaction that has the head.
func (r Reader) knownState(ctx context.Context, l *tail, key string, before int64) (value []byte, ok bool, err error) {
	if value, ok, known := l.state(key, before); known {
		return value, ok, nil
	}
	value, ok, err = r.settled().State(ctx, key, l.start)
	if err == nil {
		l.remember(key, value, ok)
	}
	return value, ok, err
}

// knownStates is States in a transaction that has the head.
func (r Reader) knownStates(ctx context.Context, l *tail, keys []string, before int64) (map[string][]byte, error) {
	found := make(map[string][]byte, len(keys))
	var unknown []string
	for _, key := range keys {
		value, there, known := l.state(key, before)
		if !known {
			unknown = append(unknown, key)
		} else if there {
			found[key] = value
		}
	}
	read, err := r.settled().States(ctx, unknown, l.start)
	if err != nil {
		return nil, err
	}
	for _, key := range unknown {
		value, there := read[key]
		l.remember(key, value, there)
		if there {
			found[key] = value
		}
	}
	return found, nil
}

// knownHashes is Hashes in a transaction that has the head.
func (r Reader) knownHashes(ctx context.Context, l *tail, positions []int64) ([][32]byte, error) {
	if len(l.hashes) >= mostKnown { // among them what was not sent yet
		if err := r.pending.flush(ctx); err != nil {
			return nil, err
		}
		clear(l.hashes)
	}
	var unknown []int64
	for _, p := range positions {
		if _, known := l.hashes[p]; !known {
			unknown = append(unknown, p)
		}
	}
	read, err := r.settled().Hashes(ctx, unknown)
	if err != nil {
		return nil, err
	}
	for i, p := range unknown {
		l.hashes[p] = read[i]
	}
	hashes := make([][32]byte, len(positions))
	for i, p := range positions {
		hashes[i] = l.hashes[p]
	}
	return hashes, nil
}

// knownBytes is CrateBytes in a transaction that has the head.
func (r Reader) knownBytes(ctx context.Context, l *tail, nameKey string) (int64, error) {
	size, known := l.lines[nameKey]
	if !known {
		var err error
		if size, err = r.settled().crateBytes(ctx, nameKey, l.start); err != nil {
			return 0, err
		}
		l.lines[nameKey] = size
	}
	return size + l.added[nameKey], nil
}
