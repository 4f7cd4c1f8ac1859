// What Go's text/template makes of template cases.
//
//	fill FILE…   sets "out" and "err" of each case of the files (tests/data/confd/templates/*.json);
//	             cases with "newer" need a newer Go than runs here and stay as they are
//	serve        answers a case in hexadecimal a line: TEXT DATA -> "ok OUT" or "err MESSAGE OUT"
//	bench        see tests/bench/bench_template.c
//
// go build -o gen tests/data/confd/gen/main.go tests/data/confd/gen/world.go tests/data/confd/gen/bench.go
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"text/template"
)

type Case struct {
	Name  string          `json:"name"`
	Text  string          `json:"text"`
	Data  json.RawMessage `json:"data,omitempty"`
	Newer bool            `json:"newer,omitempty"`
	Out   string          `json:"out"`
	Err   string          `json:"err,omitempty"`
}

// Addresses differ from run to run; ours are always these, which are as long.
var (
	address     = regexp.MustCompile("0xc0[0-9a-f]{8}")
	funcAddress = regexp.MustCompile("0x[45][0-9a-f]{5}")
)

func fixed(s string) string {
	return funcAddress.ReplaceAllString(address.ReplaceAllString(s, "0xc000010000"), "0x500000")
}

func render(name, text string, data interface{}) (out string, message string) {
	var b bytes.Buffer
	defer func() {
		out = fixed(b.String())
		if r := recover(); r != nil {
			message = fmt.Sprint("panic: ", r)
		}
	}()
	t, err := template.New(name).Funcs(funcs).Parse(text)
	if err == nil {
		err = t.Execute(&b, data)
	}
	if err != nil {
		message = fixed(err.Error())
	}
	return
}

func fill(path string) {
	raw, err := os.ReadFile(path)
	need(err)
	var file struct {
		Data  json.RawMessage
		Cases []Case
	}
	need(json.Unmarshal(raw, &file))
	lines := []string{}
	for _, c := range file.Cases {
		data := file.Data
		if c.Data != nil {
			data = c.Data
		}
		if !c.Newer {
			c.Out, c.Err = render("t", c.Text, value(data))
		}
		var line bytes.Buffer
		e := json.NewEncoder(&line)
		e.SetEscapeHTML(false)
		need(e.Encode(c))
		lines = append(lines, strings.TrimSpace(line.String()))
	}
	var data bytes.Buffer
	need(json.Compact(&data, file.Data))
	need(os.WriteFile(path, []byte(fmt.Sprintf("{\"data\": %s,\n\"cases\": [\n%s\n]}\n", data.String(),
		strings.Join(lines, ",\n"))), 0o644))
}

func unhex(s string) string {
	b, err := hex.DecodeString(s)
	need(err)
	return string(b)
}

func serve() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		out, message := render("t", unhex(words[0]), value(json.RawMessage(unhex(words[1]))))
		if message != "" {
			fmt.Printf("err %x %x\n", message, out)
		} else {
			fmt.Printf("ok %x\n", out)
		}
	}
}

func main() {
	switch {
	case len(os.Args) > 2 && os.Args[1] == "fill":
		for _, path := range os.Args[2:] {
			fill(path)
		}
	case len(os.Args) == 2 && os.Args[1] == "serve":
		serve()
	case len(os.Args) > 2 && os.Args[1] == "bench":
		bench(os.Args[2:])
	default:
		fmt.Fprintln(os.Stderr, "usage: fill FILE… | serve | bench TEMPLATE DATA ROUNDS")
		os.Exit(2)
	}
}
