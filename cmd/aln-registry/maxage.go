package main

import (
	"fmt"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// maxAge is the flag --max-age: how old a log's newest checkpoint may be. Nothing
// at all would pass an age of zero, so that is a mistake; to judge no age takes a word.
type maxAge struct{ age time.Duration }

const (
	maxAgeVariable = "ALN_MAX_AGE"
	anyAge         = "off"
)

// Set implements pflag.Value.
func (m *maxAge) Set(text string) error {
	if text == anyAge {
		m.age = verify.AnyAge
		return nil
	}
	age, err := time.ParseDuration(text)
	if err != nil || age <= 0 {
		return fmt.Errorf("%.40q is not a duration above zero, such as 24h or 90m; the word %s lets checkpoints of any age pass", text, anyAge)
	}
	m.age = age
	return nil
}

// String implements pflag.Value.
func (m *maxAge) String() string {
	switch m.age {
	case 0:
		return fmt.Sprintf("%gh", client.DefaultMaxAge.Hours())
	case verify.AnyAge:
		return anyAge
	}
	return m.age.String()
}

// Type implements pflag.Value.
func (m *maxAge) Type() string { return "duration" }
