package did

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

const exampleDID = "did:web:lab.example"

// document makes a document of exampleDID from members, which begin with a comma or are empty.
func document(members string) string { return `{"id":"` + exampleDID + `"` + members + `}` }

// method makes a Multikey method of exampleDID.
func method(id string) string {
	return fmt.Sprintf(`{"id":%q,"type":"Multikey","controller":%q,"publicKeyMultibase":%q}`, id, exampleDID, exampleEd25519)
}

func mustURL(t testing.TB, s string) URL {
	t.Helper()
	u, err := ParseURL(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func mustDocument(t testing.TB, s string) *Document {
	t.Helper()
	d, err := ParseDocument([]byte(s))
	if err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return d
}

// TestKeysServeTheRelationshipsTheirDocumentGives reads a document as others
// write them: every supported type, relative and absolute ids, foreign members,
// keys and references that mean nothing here.
func TestKeysServeTheRelationshipsTheirDocumentGives(t *testing.T) {
	data, err := os.ReadFile("testdata/document.json")
	if err != nil {
		t.Fatal(err)
	}
	doc := mustDocument(t, string(data))
	if doc.ID() != exampleDID {
		t.Errorf("ID = %s", doc.ID())
	}
	ed, p256 := exampleEd25519, exampleP256
	for _, test := range []struct {
		fragment string
		rel      Relationship
		key      string // "" for err
		err      error
	}{
		{"multikey", Authentication, ed, nil},
		{"multikey", AssertionMethod, ed, nil},
		{"multikey", CapabilityInvocation, "", ErrRelationship},
		{"p256", AssertionMethod, p256, nil},
		{"p256", Authentication, "", ErrRelationship},
		{"ed2020", CapabilityInvocation, ed, nil},
		{"jwk-ed", CapabilityInvocation, "z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw", nil},
		{"jwk-p256", CapabilityInvocation, "zDnaepBuvsQ8cpsWrVKw8fbpGpvPeNSjVPTWoq6cRqaYzBKVP", nil},
		{"embedded", Authentication, ed, nil},
		{"embedded", AssertionMethod, "", ErrRelationship},
		{"embedded", CapabilityInvocation, "", ErrRelationship}, // though it refers to it
		{"unused", Authentication, "", ErrRelationship},
		{"x25519", Authentication, "", ErrKeyNotFound},
		{"secp256k1", AssertionMethod, "", ErrKeyNotFound},
		{"rsa", AssertionMethod, "", ErrKeyNotFound},
		{"encryption", AssertionMethod, "", ErrKeyNotFound},
		{"absent", AssertionMethod, "", ErrKeyNotFound},
		{"Multikey", Authentication, "", ErrKeyNotFound},
		{"multikey", "keyAgreement", "", ErrRelationship},
	} {
		u := URL{exampleDID, test.fragment}
		k, err := doc.PublicKey(u, test.rel)
		if !errors.Is(err, test.err) || k.Multikey() != test.key {
			t.Errorf("%s for %s: %s, %v; want %s, %v", test.fragment, test.rel, k, err, test.key, test.err)
		}
		resolved, resolveErr := ResolveKey(u, test.rel, doc)
		if resolved != k || (resolveErr == nil) != (err == nil) {
			t.Errorf("ResolveKey of %s for %s: %s, %v; want %s, %v", test.fragment, test.rel, resolved, resolveErr, k, err)
		}
	}
	if k, err := doc.PublicKey(URL{"did:web:other.example", "multikey"}, Authentication); !errors.Is(err, ErrKeyNotFound) {
		t.Errorf("another DID's key: %s, %v; want ErrKeyNotFound", k, err)
	}
}

func TestParseDocumentRefuses(t *testing.T) {
	listed := func(methods ...string) string {
		return document(`,"verificationMethod":[` + strings.Join(methods, ",") + `]`)
	}
	jwk := func(members string) string {
		return listed(`{"id":"#k","type":"JsonWebKey","controller":"` + exampleDID + `","publicKeyJwk":{` + members + `}}`)
	}
	const x = `"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	replace := func(old, new string) string { return listed(strings.Replace(method("#k"), old, new, 1)) }
	many := make([]string, maxMethods+1)
	for i := range many {
		many[i] = method(fmt.Sprintf("#k%d", i))
	}
	for name, data := range map[string]string{
		"nothing":                         "",
		"not an object":                   `["did:web:lab.example"]`,
		"null":                            `null`,
		"cut off":                         `{"id":"did:web:lab.example"`,
		"trailing data":                   document("") + document(""),
		"no id":                           `{"verificationMethod":[]}`,
		"null id":                         `{"id":null}`,
		"id is a number":                  `{"id":1}`,
		"id is no DID":                    `{"id":"https://lab.example"}`,
		"id is a DID URL":                 `{"id":"did:web:lab.example#a"}`,
		"Id for id":                       `{"Id":"did:web:lab.example"}`,
		"duplicate id":                    document(`,"id":"did:web:lab.example"`),
		"duplicate by escape":             document(`,"\u0069d":"did:web:evil.example"`),
		"duplicate in an unknown member":  document(`,"service":[{"a":1,"a":2}]`),
		"duplicate in a method":           replace(`"type":"Multikey"`, `"type":"X","type":"Multikey"`),
		"invalid UTF-8":                   document(`,"note":"` + "\xff" + `"`),
		"too deep in an unknown member":   document(`,"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40)),
		"too deep without an end":         strings.Repeat(`{"a":`, 1000),
		"more than 64 KiB":                document(`,"x":"` + strings.Repeat("a", MaxDocument) + `"`),
		"methods are an object":           document(`,"verificationMethod":` + method("#k")),
		"method is null":                  listed("null"),
		"method is a string":              listed(`"#k"`),
		"method without id":               listed(method("")),
		"method without type":             replace(`"type":"Multikey",`, ``),
		"method without controller":       replace(`"controller":"`+exampleDID+`",`, ``),
		"another controller":              replace(`"controller":"`+exampleDID, `"controller":"did:web:evil.example`),
		"another DID's method":            listed(method("did:web:evil.example#k")),
		"method id without fragment":      listed(method(exampleDID)),
		"method id relative without #":    listed(method("k")),
		"empty fragment":                  listed(method("#")),
		"same id twice":                   listed(method("#k"), method("#k")),
		"same id relative and absolute":   listed(method("#k"), method(exampleDID+"#k")),
		"same id as an ignored method":    listed(`{"id":"#k","type":"Unknown"}`, method("#k")),
		"same id listed and embedded":     document(`,"verificationMethod":[` + method("#k") + `],"authentication":[` + method("#k") + `]`),
		"too many methods":                listed(many...),
		"no key":                          replace(`"publicKeyMultibase":"`+exampleEd25519+`"`, `"publicKeyHex":"00"`),
		"both kinds of key":               replace(`"publicKeyMultibase"`, `"publicKeyJwk":{},"publicKeyMultibase"`),
		"malformed key":                   replace(exampleEd25519, multikeyOf(codecEd25519+strings.Repeat("\x02", 31))),
		"small-order key":                 replace(exampleEd25519, multikeyOf(codecEd25519+string(make([]byte, 32)))),
		"P-256 as Ed25519":                listed(strings.Replace(strings.Replace(method("#k"), "Multikey", "Ed25519VerificationKey2020", 1), exampleEd25519, exampleP256, 1)),
		"jwk missing":                     listed(strings.Replace(method("#k"), "Multikey", "JsonWebKey", 1)),
		"jwk is a string":                 listed(`{"id":"#k","type":"JsonWebKey","controller":"` + exampleDID + `","publicKeyJwk":"x"}`),
		"jwk without x":                   jwk(`"kty":"OKP","crv":"Ed25519"`),
		"jwk with padded x":               jwk(`"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="`),
		"jwk with line break in x":        jwk(`"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\n"`),
		"jwk with stray bits in x":        jwk(`"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURp"`),
		"jwk with y":                      jwk(`"kty":"OKP","crv":"Ed25519","y":"AA",` + x),
		"jwk with duplicate x":            jwk(`"kty":"OKP","crv":"Ed25519",` + x + `,` + x),
		"jwk with a private key":          jwk(`"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",` + x),
		"jwk of another algorithm":        jwk(`"kty":"OKP","crv":"Ed25519","alg":"ES256",` + x),
		"jwk off the curve":               jwk(`"kty":"EC","crv":"P-256","y":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",` + x),
		"relationship is a string":        document(`,"authentication":"#k"`),
		"relationship holds a number":     document(`,"authentication":[1]`),
		"relationship holds null":         document(`,"authentication":[null]`),
		"embedded method of another DID":  document(`,"assertionMethod":[` + method("did:web:evil.example#k") + `]`),
		"embedded method's fields unlike": document(`,"assertionMethod":[{"id":1}]`),
	} {
		t.Run(name, func(t *testing.T) {
			if doc, err := ParseDocument([]byte(data)); !errors.Is(err, ErrDocument) || doc != nil {
				t.Errorf("ParseDocument = %v, %v; want ErrDocument for %.300s", doc, err, data)
			}
		})
	}
}

func TestParseDocumentTakesTheLargestAndDeepest(t *testing.T) {
	prefix, suffix := document(`,"x":"`), `"}`
	prefix = strings.TrimSuffix(prefix, "}")
	data := prefix + strings.Repeat("a", MaxDocument-len(prefix)-len(suffix)) + suffix
	if _, err := ParseDocument([]byte(data)); err != nil || len(data) != MaxDocument {
		t.Errorf("%d bytes: %v", len(data), err)
	}
	deepest := document(`,"x":` + strings.Repeat("[", maxDocumentDepth-1) + strings.Repeat("]", maxDocumentDepth-1))
	if _, err := ParseDocument([]byte(deepest)); err != nil {
		t.Errorf("depth %d: %v", maxDocumentDepth, err)
	}
	deeper := document(`,"x":` + strings.Repeat("[", maxDocumentDepth) + strings.Repeat("]", maxDocumentDepth))
	if _, err := ParseDocument([]byte(deeper)); !errors.Is(err, ErrDocument) {
		t.Errorf("depth %d: %v; want ErrDocument", maxDocumentDepth+1, err)
	}
}

func TestReferencesToNothingGiveNothing(t *testing.T) {
	for _, reference := range []string{"", "#", "#absent", "k", "did:web:evil.example#k", "did:example:1#k", exampleDID} {
		doc := mustDocument(t, document(fmt.Sprintf(`,"verificationMethod":[%s],"authentication":[%q]`, method("#k"), reference)))
		if k, err := doc.PublicKey(URL{exampleDID, "k"}, Authentication); !errors.Is(err, ErrRelationship) {
			t.Errorf("reference %q: %s, %v; want ErrRelationship", reference, k, err)
		}
	}
}

func TestResolveKeyOfDIDKeyIsTheKeyItself(t *testing.T) {
	for _, multikey := range []string{exampleEd25519, exampleP256} {
		u := mustURL(t, "did:key:"+multikey+"#"+multikey)
		for _, rel := range []Relationship{Authentication, AssertionMethod, CapabilityInvocation} {
			if k, err := ResolveKey(u, rel, nil); err != nil || k.URL() != u {
				t.Errorf("%s for %s: %s, %v", u, rel, k, err)
			}
		}
	}
}

func TestResolveKeyRefuses(t *testing.T) {
	key := DID("did:key:" + exampleEd25519)
	doc := mustDocument(t, document(`,"assertionMethod":[`+method("#k")+`]`))
	keyDoc := mustDocument(t, `{"id":"`+string(key)+`"}`)
	for _, test := range []struct {
		name string
		url  URL
		rel  Relationship
		doc  *Document
		want error
	}{
		{"another fragment of a did:key", URL{key, exampleP256}, AssertionMethod, nil, ErrKeyNotFound},
		{"no fragment", URL{DID: key}, AssertionMethod, nil, ErrKeyNotFound},
		{"a document for a did:key", URL{key, exampleEd25519}, AssertionMethod, keyDoc, ErrDocument},
		{"no document for a did:web", URL{exampleDID, "k"}, AssertionMethod, nil, ErrDocument},
		{"another DID's document", URL{"did:web:other.example", "k"}, AssertionMethod, doc, ErrDocument},
		{"an unknown relationship", URL{key, exampleEd25519}, "keyAgreement", nil, ErrRelationship},
		{"no relationship", URL{key, exampleEd25519}, "", nil, ErrRelationship},
		{"another relationship", URL{exampleDID, "k"}, Authentication, doc, ErrRelationship},
		{"a bad did:key", URL{"did:key:z6Mk", "z6Mk"}, AssertionMethod, nil, ErrDID},
		{"nothing", URL{}, AssertionMethod, nil, ErrDocument},
	} {
		if k, err := ResolveKey(test.url, test.rel, test.doc); !errors.Is(err, test.want) || !k.IsZero() {
			t.Errorf("%s: %s, %v; want %v", test.name, k, err, test.want)
		}
	}
}
