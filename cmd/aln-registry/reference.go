package main

import (
	"errors"
	"fmt"
	"strings"

	"phoenix-lab.org/aln-registry/registry/record"
)

// kindNames lists the kinds for help texts.
func kindNames() string {
	var names []string
	for _, k := range record.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// plainly is an error about what was typed, without the words that are for records.
func plainly(err error) error {
	return usageError{errors.New(strings.TrimPrefix(err.Error(), record.ErrMalformed.Error()+": "))}
}

// reference parses KIND/NAME or KIND/NAME@VERSION; a name alone is a crate's.
func reference(text string) (record.Subject, error) {
	s, err := record.ParseReference(text)
	if err != nil {
		return s, plainly(err)
	}
	return s, nil
}

// nameReference is a reference without version.
func nameReference(text string) (record.Subject, error) {
	s, err := reference(text)
	if err == nil && s.Version() != "" {
		err = usageError{fmt.Errorf("%s names a version; this is about all of them, write %s/%s", s, s.Kind(), s.Name())}
	}
	return s, err
}

// versionReference is a reference with version.
func versionReference(text string) (record.Subject, error) {
	s, err := reference(text)
	if err == nil && s.Version() == "" {
		err = usageError{fmt.Errorf("%s names no version; write %s@VERSION (`aln-registry list %s` shows them)", s, s, s)}
	}
	return s, err
}

func parseKind(text string) (record.Kind, error) {
	k, err := record.ParseKind(text)
	if err != nil {
		return k, plainly(err)
	}
	return k, nil
}
