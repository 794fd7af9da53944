package manifest

import "bytes"

// document is one YAML document of a file.
type document struct {
	text []byte
	line int // lines of the file before text
}

// split cuts a YAML stream at its document markers. Documents are parsed one by one, so that a broken one does not
// hide what is wrong with its neighbours.
func split(data []byte) []document {
	var docs []document
	start, startLine := 0, 0
	content := false // a line between start and here is more than blank, comment or directive
	line := 0
	for pos := 0; pos < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		text := data[pos:end]
		switch {
		case marker(text, "---"):
			if content {
				docs = append(docs, document{data[start:pos], startLine})
				start, startLine = pos, line
			}
			content = true
		case marker(text, "..."):
			docs = append(docs, document{data[start:end], startLine})
			start, startLine, content = end, line+1, false
		case !content:
			trimmed := bytes.TrimSpace(text)
			content = len(trimmed) > 0 && trimmed[0] != '#' && text[0] != '%'
		}
		pos = end
	}
	if content {
		docs = append(docs, document{data[start:], startLine})
	}
	return docs
}

// marker says whether a line is the document marker mark, alone or followed by white space and more.
func marker(line []byte, mark string) bool {
	if !bytes.HasPrefix(line, []byte(mark)) {
		return false
	}
	return len(line) == len(mark) || bytes.IndexByte([]byte(" \t\r\n"), line[len(mark)]) >= 0
}
