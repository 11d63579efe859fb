package policy

// reason is what a Decision says in words, before anybody has asked for them.
type reason struct {
	kind uint8
	text string
}

const sayText uint8 = 0

// Reason says why in words, for the one who asked.
func (d Decision) Reason() string { return d.say.text }

// Denial is the decision as an error, nil if it allows.
func (d Decision) Denial() *Denial {
	if d.Allow {
		return nil
	}
	return &Denial{Rule: d.Rule, Reason: d.Reason()}
}

// Refusal is the whole sentence for somebody who asked for the bytes of name and
// version, both as published, and does not get them: rule, reason, whom to ask.
func (d Decision) Refusal(name, version string) string { return "" }
