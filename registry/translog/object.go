package translog

import (
	"fmt"
	"strconv"
	"strings"
)

// Prefixes of the log's objects in blob storage; keys below them sort by number.
const (
	EntryPrefix      = "log/entry/"
	CheckpointPrefix = "log/checkpoint/"

	keyDigits = 16
)

// EntryKey is the object key of the entry at index: log/entry/0000000000000007.
func EntryKey(index int64) string { return EntryPrefix + fmt.Sprintf("%0*d", keyDigits, index) }

// CheckpointKey is the object key of the checkpoint of a log of size entries.
func CheckpointKey(size int64) string {
	return CheckpointPrefix + fmt.Sprintf("%0*d", keyDigits, size)
}

// ParseEntryKey is the inverse of EntryKey; anything else is ErrKey.
func ParseEntryKey(key string) (index int64, err error) {
	return parseKey(EntryPrefix, key, MaxSize-1)
}

// ParseCheckpointKey is the inverse of CheckpointKey; anything else is ErrKey.
func ParseCheckpointKey(key string) (size int64, err error) {
	return parseKey(CheckpointPrefix, key, MaxSize)
}

func parseKey(prefix, key string, limit int64) (int64, error) {
	digits, found := strings.CutPrefix(key, prefix)
	if !found || len(digits) != keyDigits {
		return 0, fmt.Errorf("%w: %q, expected %s and %d digits", ErrKey, key, prefix, keyDigits)
	}
	n, err := strconv.ParseUint(digits, 10, 63) // takes no sign, and no underscore in base 10
	if err != nil || int64(n) > limit {
		return 0, fmt.Errorf("%w: %q, expected a number up to %d", ErrKey, key, limit)
	}
	return int64(n), nil
}
