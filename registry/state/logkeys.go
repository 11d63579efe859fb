package state

import (
	"fmt"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
)

// LogKeyOverlap is how long the log goes on signing with a key that was
// replaced, beside its successor (FORMATS §4).
const LogKeyOverlap = 30 * 24 * time.Hour

// LogKeys is how the log's keys came to be what settings state. Its zero value
// stands for those of entry 0.
type LogKeys struct {
	// Record is the registry record that last put another list in force, Index
	// the entry by which it came to be: the registry record itself, or the vote that decided.
	Record record.ID `json:"record"`
	Index  int64     `json:"index"`
	// Replaced are all keys that once signed first, in the order in which they ceased to.
	Replaced []ReplacedKey `json:"replaced"`
}

// ReplacedKey is a log key that another took the place of.
type ReplacedKey struct {
	Key string `json:"key"`
	// Since is the time of the entry that replaced it.
	Since time.Time `json:"since"`
}

// Signing returns those of listed (a registry record's log_keys) that sign
// checkpoints at the time at: the first, and those that were replaced less than
// LogKeyOverlap ago. Others that are listed never sign.
func (k LogKeys) Signing(listed []string, at time.Time) []string {
	signing := slices.Clone(listed[:1])
	for _, key := range listed[1:] {
		if old, ok := k.replaced(key); ok && at.Before(old.Since.Add(LogKeyOverlap)) {
			signing = append(signing, key)
		}
	}
	return signing
}

// Next returns what becomes of k when next takes the place of listed by the
// registry record id, in the entry index at the time at; an error says which
// rule of FORMATS §4 that breaks. Lists that are equal change nothing.
func (k LogKeys) Next(listed, next []string, id record.ID, index int64, at time.Time) (LogKeys, error) {
	if slices.Equal(listed, next) {
		return k, nil
	}
	now := LogKeys{Record: id, Index: index, Replaced: slices.Clone(k.Replaced)}
	if next[0] != listed[0] {
		if _, before := k.replaced(next[0]); before {
			return LogKeys{}, fmt.Errorf("the log key %s was replaced once and cannot sign first again; make a new one", next[0])
		}
		now.Replaced = append(now.Replaced, ReplacedKey{Key: listed[0], Since: at})
	}
	for _, old := range now.Replaced {
		if until := old.Since.Add(LogKeyOverlap); at.Before(until) && !slices.Contains(next, old.Key) {
			return LogKeys{}, fmt.Errorf("log_keys must go on listing %s behind its successor until %s", old.Key, until.Format(time.RFC3339))
		}
	}
	return now, nil
}

func (k LogKeys) replaced(key string) (ReplacedKey, bool) {
	i := slices.IndexFunc(k.Replaced, func(r ReplacedKey) bool { return r.Key == key })
	if i < 0 {
		return ReplacedKey{}, false
	}
	return k.Replaced[i], true
}
