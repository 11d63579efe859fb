package cargo

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// What cargo does not read of a line makes it pass over the line: the version is as good as not
// there, also to who has it in a lock. And one such line makes it crash, and takes the whole file.

// reading is what cargo makes of a line, or a dependency.
type reading struct {
	// unread: it does not read it. crashes: it does not survive it (seen of 1.95).
	unread, crashes bool
}

// readingOf is what cargo makes of a dependency, which is of the form of resolvedDep.
func readingOf(dep jsontext.Value) reading {
	var d readableDep
	if json.Unmarshal(dep, &d) != nil || d.Name == nil || d.Req == nil {
		return reading{unread: true}
	}
	nameless := d.Package == nil && *d.Name == "" || d.Package != nil && *d.Package == ""
	return reading{nameless, nameless}
}

// readableDep has the form of a dependency that cargo reads. What is a pointer here may be null.
type readableDep struct {
	Name            *string  `json:"name"` // has to be there, and not null
	Req             *string  `json:"req"`  // as well
	Features        nullFree `json:"features"`
	Optional        nullFree `json:"optional"`
	DefaultFeatures nullFree `json:"default_features"`
	Package         *string  `json:"package"`
	Public          *bool    `json:"public"`
	// These are of artifact dependencies.
	Artifact      *nullFree `json:"artifact"`
	IncludeAsALib nullFree  `json:"lib"`
}

var errForm = errors.New("it is of another form than cargo reads")

// nullFree is a value that cargo does not read as null, nor with a null in it. What else it is
// has been looked at before.
type nullFree struct{}

// UnmarshalJSON implements json.Unmarshaler.
func (*nullFree) UnmarshalJSON(raw []byte) error {
	if holdsNull(raw) {
		return errForm
	}
	return nil
}

// holdsNull reports whether there is a null in a value, or it is one.
func holdsNull(raw jsontext.Value) bool {
	if !bytes.Contains(raw, []byte("null")) {
		return false
	}
	for d := jsontext.NewDecoder(bytes.NewReader(raw)); ; {
		switch token, err := d.ReadToken(); {
		case err != nil:
			return false
		case token.Kind() == 'n':
			return true
		}
	}
}
