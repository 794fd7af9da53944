package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// parseJSON reads a .json file, keeping lines.
func parseJSON(text []byte) (v *value, duplicates []*syntaxError, err error) {
	if len(text) > maxDocumentBytes {
		return nil, nil, &syntaxError{limit: true, message: fmt.Sprintf("document is too large (got %d bytes, want at most %d)", len(text), maxDocumentBytes)}
	}
	p := jsonParser{decoder: json.NewDecoder(bytes.NewReader(text)), text: text, line: 1}
	p.decoder.UseNumber()
	v, err = p.next("", 0)
	if errors.Is(err, io.EOF) {
		return nil, nil, nil
	}
	if err == nil {
		if _, end := p.decoder.Token(); !errors.Is(end, io.EOF) {
			err = p.wrong(errors.New("something follows the object"))
		}
	}
	return v, p.duplicates, err
}

type jsonParser struct {
	decoder    *json.Decoder
	text       []byte
	pos, line  int // line of text[pos]
	nodes      int
	duplicates []*syntaxError
}

// token returns the next token and the line it ends on.
func (p *jsonParser) token() (json.Token, int, error) {
	token, err := p.decoder.Token()
	end := int(p.decoder.InputOffset())
	p.line += bytes.Count(p.text[p.pos:end], []byte("\n"))
	p.pos = end
	return token, p.line, err
}

func (p *jsonParser) wrong(err error) error {
	line := p.line
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line = 1 + bytes.Count(p.text[:min(int(syntax.Offset), len(p.text))], []byte("\n"))
	}
	return &syntaxError{line: line, message: "is not valid JSON: " + err.Error()}
}

func (p *jsonParser) next(path string, depth int) (*value, error) {
	token, line, err := p.token()
	if errors.Is(err, io.EOF) && depth == 0 {
		return nil, err
	}
	if err != nil {
		return nil, p.wrong(err)
	}
	if p.nodes++; depth > maxDepth || p.nodes > maxNodes {
		return nil, &syntaxError{line: line, limit: true, message: fmt.Sprintf("is nested too deeply or too large (want at most %d levels and %d values)", maxDepth, maxNodes)}
	}
	v := &value{line: line}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			v.data, err = p.object(path, depth)
		} else {
			v.data, err = p.array(path, depth)
		}
	case json.Number:
		v.data, err = number(t.String())
	default:
		v.data = token
	}
	return v, err
}

func (p *jsonParser) object(path string, depth int) (*mapping, error) {
	m := &mapping{}
	for p.decoder.More() {
		token, line, err := p.token()
		if err != nil {
			return nil, p.wrong(err)
		}
		key, _ := token.(string) // the decoder only lets strings through here
		field := child(path, key)
		v, err := p.next(field, depth+1)
		if err != nil {
			return nil, err
		}
		v.line = line
		if first := m.get(key); first != nil {
			p.duplicates = append(p.duplicates, &syntaxError{line: line, field: field, message: fmt.Sprintf("is set twice (first %s)", linesUp(line, first.line))})
			continue
		}
		m.add(key, v)
	}
	if _, _, err := p.token(); err != nil {
		return nil, p.wrong(err)
	}
	return m, nil
}

func (p *jsonParser) array(path string, depth int) ([]*value, error) {
	items := []*value{}
	for p.decoder.More() {
		v, err := p.next(item(path, len(items)), depth+1)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	if _, _, err := p.token(); err != nil {
		return nil, p.wrong(err)
	}
	return items, nil
}

func number(s string) (any, error) {
	if !strings.ContainsAny(s, ".eE") {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return i, nil
		}
		if u, err := strconv.ParseUint(s, 10, 64); err == nil {
			return u, nil
		}
	}
	return float(s)
}
