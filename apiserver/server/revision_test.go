package server

import (
	"net/http"
	"strings"
	"testing"
)

func TestListRevisionsAreChecked(t *testing.T) {
	f := newFixture(t)
	person := f.person(t)
	for query, want := range map[string]struct {
		code int
		text string
	}{
		"resourceVersion=0": {http.StatusOK, "settings"},
		"resourceVersion=3&resourceVersionMatch=NotOlderThan":     {http.StatusOK, "settings"},
		"resourceVersion=1&resourceVersionMatch=Exact":            {http.StatusOK, `"items":[]`},
		"resourceVersion=100000":                                  {http.StatusGatewayTimeout, "Too large resource version: 100000"},
		"resourceVersion=100000&resourceVersionMatch=Exact":       {http.StatusGatewayTimeout, "Too large resource version: 100000"},
		"resourceVersion=0&resourceVersionMatch=Exact":            {http.StatusUnprocessableEntity, "is forbidden for resourceVersion"},
		"resourceVersionMatch=Exact":                              {http.StatusUnprocessableEntity, "resourceVersionMatch is forbidden unless resourceVersion is provided"},
		"resourceVersion=3&resourceVersionMatch=Never":            {http.StatusUnprocessableEntity, "NotOlderThan"},
		"continue=x&resourceVersion=3&resourceVersionMatch=Exact": {http.StatusUnprocessableEntity, "resourceVersionMatch is forbidden when continue is provided"},
		"continue=x&resourceVersion=3":                            {http.StatusBadRequest, "specifying resource version is not allowed when using continue"},
		"watch=1&resourceVersion=3&resourceVersionMatch=Exact":    {http.StatusUnprocessableEntity, "resourceVersionMatch is forbidden for watch"},
	} {
		code, body := f.do(t, person, http.MethodGet, "/api/v1/namespaces/shop/configmaps?"+query, "")
		if code != want.code || !strings.Contains(strings.ReplaceAll(body, " ", ""), strings.ReplaceAll(want.text, " ", "")) {
			t.Errorf("%s: %d %s, want %d %q", query, code, body, want.code, want.text)
		}
	}
}
