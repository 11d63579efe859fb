package storage

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// MaxObject is the most bytes that an object has.
	MaxObject = 1 << 20
	maxKey    = 255 // bytes of a key
)

// reserved are first segments of keys that stores keep for themselves: the
// blobs, and what a folder needs beside them. No store takes what another would not.
var reserved = []string{"blobs", "incoming", "lock"}

// CheckKey accepts the key of an object: slash-separated segments of [a-z0-9-],
// the first not a reserved one; anything else is ErrBadKey.
func CheckKey(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("%w: %d bytes are more than %d", ErrBadKey, len(key), maxKey)
	}
	for i, segment := range strings.Split(key, "/") {
		if segment == "" || strings.Trim(segment, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return fmt.Errorf("%w: %q", ErrBadKey, key)
		}
		if i == 0 && slices.Contains(reserved, segment) {
			return fmt.Errorf("%w: %q begins with a reserved name", ErrBadKey, key)
		}
	}
	return nil
}

// CheckObject accepts what Create takes: a key, and at most MaxObject bytes.
func CheckObject(key string, data []byte) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if len(data) > MaxObject {
		return fmt.Errorf("create object %s: %d bytes are more than %d", key, len(data), MaxObject)
	}
	return nil
}

// CheckPrefix accepts what List takes: the folders in it must be a key.
func CheckPrefix(prefix string) error {
	if slash := strings.LastIndexByte(prefix, '/'); slash >= 0 {
		return CheckKey(prefix[:slash])
	}
	return nil
}
