package server

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
)

// contract is openapi.json as the tests read it.
type contract struct {
	document  libopenapi.Document
	model     *v3.Document
	validator validator.Validator
}

// theContract reads the document once for all tests.
var theContract = sync.OnceValue(func() contract {
	document := must(libopenapi.NewDocument(openapi))
	model, err := document.BuildV3Model()
	if err != nil {
		panic(err)
	}
	v, errs := validator.NewValidator(document, config.WithFormatAssertions(), config.WithStrictMode())
	if len(errs) > 0 {
		panic(errs[0])
	}
	return contract{document, &model.Model, v}
})

var parameterForm = regexp.MustCompile(`\{[^}]*\}`)

// documented is how the document writes a route of chi's: a rest of the path is a
// parameter there, and parameters have any name.
func documented(route string) string {
	return parameterForm.ReplaceAllString(strings.ReplaceAll(route, "*", "{}"), "{}")
}

// operations are the document's, by method and path as documented writes it.
func (c contract) operations() map[string]*v3.Operation {
	found := map[string]*v3.Operation{}
	for path, item := range c.model.Paths.PathItems.FromOldest() {
		for method, operation := range item.GetOperations().FromOldest() {
			found[strings.ToUpper(method)+" "+documented(path)] = operation
		}
	}
	return found
}

// pathItem finds what the document says of a route.
func (c contract) pathItem(route string) (*v3.PathItem, string) {
	for path, item := range c.model.Paths.PathItems.FromOldest() {
		if documented(path) == documented(route) {
			return item, path
		}
	}
	return nil, ""
}

// route is the pattern that answers a request, "" for none.
func (l *lab) route(a ask) (string, bool) {
	u, err := url.ParseRequestURI(a.path)
	if err != nil {
		return "", false
	}
	path := u.RawPath
	if path == "" {
		path = u.Path
	}
	context := chi.NewRouteContext()
	if !l.routes.Match(context, a.method, path) {
		return "", false
	}
	return context.RoutePattern(), true
}

// checkContract holds an answer of the server against what openapi.json says of
// its route: status, content type, headers and the body's schema.
func (l *lab) checkContract(a ask, r reply) {
	l.t.Helper()
	route, ok := l.route(a)
	if !ok || r.header.Get("Content-Encoding") != "" {
		return
	}
	if strings.HasSuffix(route, "/did.json") { // the registry's own DID may say another place
		route = "/.well-known/did.json"
	}
	item, path := theContract().pathItem(route)
	if item == nil {
		l.t.Errorf("openapi.json says nothing of %s", route)
		return
	}
	request := must(http.NewRequest(a.method, l.url+path, nil))
	response := &http.Response{StatusCode: r.status, Header: r.header, Body: io.NopCloser(bytes.NewReader(r.body))}
	if ok, errs := theContract().validator.GetResponseBodyValidator().ValidateResponseBodyWithPathItem(request, response, item, path); !ok {
		for _, err := range errs {
			l.t.Errorf("%s %s: openapi.json: %s: %s %v\n%s", a.method, a.path, err.Message, err.Reason, err.SchemaValidationErrors, clip(r.String()))
		}
	}
}

// clip keeps a failure readable.
func clip(s string) string {
	const most = 2000
	return s[:min(len(s), most)]
}

func TestTheContractIsValid(t *testing.T) {
	if version := theContract().document.GetVersion(); version != "3.1.0" {
		t.Errorf("OpenAPI %s", version)
	}
	_, errs := theContract().validator.ValidateDocument()
	for _, err := range errs {
		t.Errorf("%s: %s", err.Message, err.Reason)
		for _, e := range err.SchemaValidationErrors {
			t.Errorf("  %s at %s", e.Reason, e.KeywordLocation)
		}
	}
	ids := map[string]bool{}
	for name, operation := range theContract().operations() {
		if operation.OperationId == "" || ids[operation.OperationId] || operation.Summary == "" || len(operation.Tags) != 1 || operation.Security == nil {
			t.Errorf("%s lacks an operationId of its own, a summary, a tag or security", name)
		}
		ids[operation.OperationId] = true
	}
}

// Every route is described, and nothing else is.
func TestTheContractIsOfTheseRoutes(t *testing.T) {
	l := newLab(t)
	described := theContract().operations()
	err := chi.Walk(l.routes, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		name := method + " " + documented(route)
		if described[name] == nil {
			t.Errorf("openapi.json lacks %s %s", method, route)
		}
		delete(described, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range described {
		t.Errorf("openapi.json describes %s, which is no route", name)
	}
	l.get("/openapi.json", "").want(t, 200, `"servers": [{"url": "`+l.url+`"}]`)
}

// What the document says of who may ask is what the table of routes tries: open
// routes need no session, the others refuse who has none, and those with an empty
// requirement beside the session answer anonymous readers where there are any.
func TestTheContractSaysWhoMayAsk(t *testing.T) {
	l := newLab(t, anonymous)
	l.demo()
	operations := theContract().operations()
	for name, row := range routesTable {
		method, route, _ := strings.Cut(name, " ")
		operation := operations[method+" "+documented(route)]
		if operation == nil {
			t.Errorf("openapi.json lacks %s", name)
			continue
		}
		schemes := map[string]bool{}
		for _, requirement := range operation.Security {
			schemes["nobody"] = schemes["nobody"] || requirement.ContainsEmptyRequirement
			for scheme := range requirement.Requirements.FromOldest() {
				schemes[scheme] = true
			}
		}
		refused := row.want[nobody] == http.StatusUnauthorized
		if open := len(schemes) == 0; open == refused && name != "POST /v1/session" && route != "/log/keys" { // for nobody and for members, but not the same
			t.Errorf("%s: security %v, but nobody gets %d", name, schemes, row.want[nobody])
		}
		if change := method != http.MethodGet && route != "/v1/session" && route != "/v1/records" && route != "/v1/rules/test" && route != "/v1/decisions" && route != "/v1/upstreams/{name}/prefetch" && route != "/v1/locks/*" && route != "/v1/upstreams/{name}/alarms/{id}/seen"; change != schemes["signed"] {
			t.Errorf("%s: security %v", name, schemes)
		}
		if method != http.MethodGet || !refused {
			continue
		}
		a := row.ask(l, nobody)
		if route == "/v1/records/{id}" { // entry 1 is a member's
			a.path = "/v1/records/4"
		}
		if r := l.do(a); (r.status == http.StatusOK) != schemes["nobody"] {
			t.Errorf("%s: security %v, but anonymous readers get %s", name, schemes, r)
		}
	}
}
