package web

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// What a statement says in characters that nobody sees is seen, and is still the same JSON.
func TestStatementsShowWhatTheyHold(t *testing.T) {
	const payload = "{\"reason\":\"a\u202ecod.exe\u2066\u200b\ufeff\U000e0041 </pre><script>\", \"n\":[1,{}], \"r\u2067ole\":\"\\\\u202e\"}"
	envelope := fmt.Appendf(nil, `{"payload":%q}`, base64.StdEncoding.EncodeToString([]byte(payload)))
	got, err := statementOf(envelope)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`a\u202ecod.exe\u2066\u200b\ufeff\udb40\udc41 </pre><script>`, `"r\u2067ole"`} {
		if !strings.Contains(got, want) {
			t.Errorf("does not say %s: %s", want, got)
		}
	}
	for _, r := range got {
		if r != '\n' && (turnsText(r) || showsNothing(r)) {
			t.Errorf("holds %U", r)
		}
	}
	var before, after any
	if json.Unmarshal([]byte(payload), &before) != nil || json.Unmarshal([]byte(got), &after) != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("other JSON: %s", got)
	}
}
