package cargoconfig

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// document is a TOML text under edit.
type document struct {
	text []byte
	// decoded is what text meant at first, want what it is to mean.
	decoded, want map[string]any
	expressions   []expression
	edited        bool
	// shrunk: something was taken away, with tables that are empty then.
	shrunk bool
}

// expression is a table header or a key with its value, at top level.
type expression struct {
	header   bool
	array    bool     // [[header]]
	table    []string // the table that a key stands in; of a header, itself
	path     []string // of a key, with its table
	inline   bool     // the value is an inline table
	valueAt  span
	elements []span // of an array: its elements
	end      int    // first byte behind it, on its last line
}

type span struct{ from, to int }

func parse(text []byte) (*document, error) {
	d := &document{text: text}
	if err := toml.Unmarshal(text, &d.decoded); err != nil {
		return nil, fmt.Errorf("it is not valid TOML (%w)", err)
	}
	if err := toml.Unmarshal(text, &d.want); err != nil {
		return nil, fmt.Errorf("it is not valid TOML (%w)", err)
	}
	if d.decoded == nil {
		d.decoded, d.want = map[string]any{}, map[string]any{}
	}
	return d, d.scan()
}

// scan finds where things stand in the text.
func (d *document) scan() error {
	d.expressions = nil
	var p unstable.Parser
	p.Reset(d.text)
	var table []string
	for p.NextExpression() {
		node := p.Expression()
		keys, end := keyOf(node)
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = keys
			d.expressions = append(d.expressions, expression{header: true, array: node.Kind == unstable.ArrayTable, table: keys, end: end})
		case unstable.KeyValue:
			d.expressions = append(d.expressions, d.keyValue(node, table, keys, end))
		}
	}
	return p.Error()
}

// keyOf returns a header's or a key's parts, and where the last one ends.
func keyOf(node *unstable.Node) (keys []string, end int) {
	for it := node.Key(); it.Next(); {
		k := it.Node()
		keys = append(keys, string(k.Data))
		end = int(k.Raw.Offset + k.Raw.Length)
	}
	return keys, end
}

func (d *document) keyValue(node *unstable.Node, table, keys []string, keyEnd int) expression {
	e := expression{table: table, path: slices.Concat(table, keys), end: int(node.Raw.Offset + node.Raw.Length)}
	from := keyEnd + bytes.IndexByte(d.text[keyEnd:], '=') + 1
	for from < e.end && (d.text[from] == ' ' || d.text[from] == '\t') {
		from++
	}
	e.valueAt = span{from, e.end}
	value := node.Value()
	e.inline = value.Kind == unstable.InlineTable
	if value.Kind == unstable.Array {
		for it := value.Children(); it.Next(); {
			if n := it.Node(); n.Kind != unstable.Comment {
				e.elements = append(e.elements, span{int(n.Raw.Offset), int(n.Raw.Offset + n.Raw.Length)})
			}
		}
	}
	return e
}

// key returns the expression that sets path itself.
func (d *document) key(path []string) (expression, error) {
	for _, e := range d.expressions {
		if !e.header && slices.Equal(e.path, path) {
			return e, nil
		}
	}
	return expression{}, fmt.Errorf("%s stands in an inline table", strings.Join(path, "."))
}

// replace puts text in the place of path's value.
func (d *document) replace(path []string, text string, value any) error {
	e, err := d.key(path)
	if err != nil {
		return err
	}
	return d.splice(e.valueAt, text, path, value)
}

func (d *document) replaceElement(path []string, i int, text string, value any) error {
	e, err := d.key(path)
	if err != nil {
		return err
	}
	if i >= len(e.elements) {
		return errors.New("its list is written in a way that is not understood")
	}
	return d.splice(e.elements[i], text, path, value)
}

// appendElement adds text behind the last element of path's list, before what
// comma or comment follows it.
func (d *document) appendElement(path []string, text string, value any) error {
	e, err := d.key(path)
	if err != nil {
		return err
	}
	if len(e.elements) == 0 {
		return errors.New("its list is written in a way that is not understood")
	}
	last := e.elements[len(e.elements)-1]
	return d.splice(span{last.to, last.to}, ", "+text, path, value)
}

// insert adds path = text: to its table where there is one, otherwise in a new
// table at the end. Tables that are written as dotted keys get another one.
func (d *document) insert(path []string, text string, value any) error {
	table := path[:len(path)-1]
	sibling := -1
	for i, e := range d.expressions {
		switch {
		case !e.header && e.inline && hasPrefix(path, e.path):
			return fmt.Errorf("%s is written as an inline table", strings.Join(e.path, "."))
		case !e.header && hasPrefix(path, e.path):
			return fmt.Errorf("%s is no table", strings.Join(e.path, "."))
		case e.header && e.array && hasPrefix(path, e.table):
			return fmt.Errorf("%s is a list of tables", strings.Join(e.table, "."))
		case slices.Equal(e.table, table) && !e.array, isDotted(e, path):
			sibling = i
		}
	}
	eol := d.lineEnding()
	if sibling < 0 {
		return d.appendTable(table, quoteKey(path[len(path)-1])+" = "+text, eol, path, value)
	}
	e := d.expressions[sibling]
	at := e.end
	if next := bytes.IndexByte(d.text[at:], '\n'); next >= 0 {
		at += next + 1
		return d.splice(span{at, at}, keyText(path[len(e.table):])+" = "+text+eol, path, value)
	}
	return d.splice(span{len(d.text), len(d.text)}, eol+keyText(path[len(e.table):])+" = "+text+eol, path, value)
}

// isDotted reports whether e is a dotted key that makes a table which path goes
// through: TOML does not let a header open that one again.
func isDotted(e expression, path []string) bool {
	return !e.header && len(e.path) > len(e.table)+1 && len(path) > len(e.table)+1 &&
		hasPrefix(path, e.path[:len(e.table)+1])
}

func (d *document) appendTable(table []string, line, eol string, path []string, value any) error {
	var b strings.Builder
	if len(d.text) > 0 {
		if d.text[len(d.text)-1] != '\n' {
			b.WriteString(eol)
		}
		b.WriteString(eol)
	}
	b.WriteString("[" + keyText(table) + "]" + eol + line + eol)
	return d.splice(span{len(d.text), len(d.text)}, b.String(), path, value)
}

// splice edits the text, notes what path is to mean, and finds everything anew.
func (d *document) splice(at span, text string, path []string, value any) error {
	d.text = slices.Concat(d.text[:at.from], []byte(text), d.text[at.to:])
	d.edited = true
	if err := assign(d.want, path, value); err != nil {
		return err
	}
	return d.scan()
}

// check decodes the edited text: it must mean what it did, and what was wanted.
func (d *document) check() error {
	var now map[string]any
	if err := toml.Unmarshal(d.text, &now); err != nil {
		return fmt.Errorf("it could not be edited safely (%w)", err)
	}
	want := d.want
	if d.shrunk {
		now, want = withoutEmpty(now), withoutEmpty(want)
	}
	if !reflect.DeepEqual(now, want) {
		return errors.New("it could not be edited without changing something else")
	}
	return nil
}

// lineEnding is that of the text's first line.
func (d *document) lineEnding() string {
	if i := bytes.IndexByte(d.text, '\n'); i > 0 && d.text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

func hasPrefix(path, prefix []string) bool {
	return len(path) >= len(prefix) && slices.Equal(path[:len(prefix)], prefix)
}

func lookup(tree map[string]any, path ...string) (any, bool) {
	var at any = tree
	for _, key := range path {
		table, ok := at.(map[string]any)
		if !ok {
			return nil, false
		}
		if at, ok = table[key]; !ok {
			return nil, false
		}
	}
	return at, true
}

func assign(tree map[string]any, path []string, value any) error {
	for _, key := range path[:len(path)-1] {
		next, found := tree[key]
		if !found {
			next = map[string]any{}
			tree[key] = next
		}
		table, ok := next.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is no table", key)
		}
		tree = table
	}
	tree[path[len(path)-1]] = value
	return nil
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func quoteKey(key string) string {
	if bareKey.MatchString(key) {
		return key
	}
	return quote(key)
}

func keyText(path []string) string {
	quoted := make([]string, len(path))
	for i, key := range path {
		quoted[i] = quoteKey(key)
	}
	return strings.Join(quoted, ".")
}

// quote writes s, which is valid UTF-8, as a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case isControl(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// isSpace is the white space at which cargo splits (Unicode White_Space, as Rust's split_whitespace).
func isSpace(r rune) bool { return strings.TrimSpace(string(r)) == "" }
