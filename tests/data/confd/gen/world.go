// The data and functions that template cases use; tests/unit/confd/template_world.c is the same in C.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/template"
)

type Pair struct {
	Key   string
	Value string
}

type Box struct {
	Name  string
	N     int
	Any   interface{}
	List  []string
	Inner Pair
	Next  *Pair
}

func (b Box) Greet(who string) string { return "hello " + who + " from " + b.Name }
func (b Box) Title() string           { return "box " + b.Name }
func (b Box) Bad() (string, error)    { return "", errors.New("bad box") }

// Level prints by its own method.
type Level int

func (l Level) String() string { return "level-" + strconv.Itoa(int(l)) }

func asciiUpper(b []byte) []byte {
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			b[i] = c - 32
		}
	}
	return b
}

var funcs = template.FuncMap{
	"add":   func(a, b int) int { return a + b },
	"upper": func(s string) string { return string(asciiUpper([]byte(s))) },
	"join":  func(l []string, sep string) string { return strings.Join(l, sep) },
	"fail":  func(s string) (string, error) { return "", errors.New("failed: " + s) },
	"any":   func(v interface{}) interface{} { return v },
	"half":  func(f float64) float64 { return f / 2 },
	"u":     func(u uint) uint { return u },
	"flag":  func(b bool) bool { return b },
	"sum": func(n ...int) int {
		s := 0
		for _, v := range n {
			s += v
		}
		return s
	},
	"tagged": func(tag string, v ...interface{}) string { return fmt.Sprint(tag, len(v)) },
	"keys":   func(m map[string]interface{}) int { return len(m) },
	"pairs":  func() []Pair { return []Pair{{"a", "1"}, {"b", "2"}} },
	"words":  func(s string) []string { return strings.Fields(s) },
	"lookup": func(m map[string]string, k string) string { return m[k] },
	"pair":   func(k, v string) Pair { return Pair{k, v} },
	"keyof":  func(p Pair) string { return p.Key },
	"null":   func() interface{} { return nil },
	"level":  func(n int) Level { return Level(n) },
}

// Functions as values.
var values = map[string]interface{}{
	"add": funcs["add"], "upper": funcs["upper"], "fail": funcs["fail"], "sum": funcs["sum"],
	"any": funcs["any"],
}

type object map[string]json.RawMessage

func need(err error) {
	if err != nil {
		panic(err)
	}
}

func read[T any](raw json.RawMessage) T {
	var v T
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	need(d.Decode(&v))
	return v
}

func number(text string) interface{} {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return int(i)
	}
	f, err := strconv.ParseFloat(text, 64)
	need(err)
	return f
}

func floats(raw json.RawMessage) []float64 {
	var out = []float64{}
	for _, n := range read[[]json.Number](raw) {
		f, _ := n.Float64()
		out = append(out, f)
	}
	return out
}

func mapOf(raw json.RawMessage) map[string]interface{} {
	out := map[string]interface{}{}
	for k, v := range read[object](raw) {
		out[k] = value(v)
	}
	return out
}

func typed(kind string, raw json.RawMessage) interface{} {
	switch kind {
	case "$uint":
		u, err := strconv.ParseUint(string(raw), 10, 64)
		need(err)
		return uint(u)
	case "$float":
		f, err := strconv.ParseFloat(read[string](raw), 64)
		need(err)
		return f
	case "$strings":
		return read[[]string](raw)
	case "$ints":
		return read[[]int](raw)
	case "$floats":
		return floats(raw)
	case "$bytes":
		return []byte(read[string](raw))
	case "$mapstring":
		return read[map[string]string](raw)
	case "$mapint":
		return read[map[string]int](raw)
	case "$intkeyed":
		return read[map[int]string](raw)
	case "$maps":
		out := []map[string]interface{}{}
		for _, m := range read[[]json.RawMessage](raw) {
			out = append(out, mapOf(m))
		}
		return out
	case "$pair":
		p := read[[]string](raw)
		return Pair{p[0], p[1]}
	case "$pairs":
		out := []Pair{}
		for _, p := range read[[][]string](raw) {
			out = append(out, Pair{p[0], p[1]})
		}
		return out
	case "$ptr":
		if string(raw) == "null" {
			return (*Pair)(nil)
		}
		p := read[[]string](raw)
		return &Pair{p[0], p[1]}
	case "$box":
		o := read[object](raw)
		b := Box{Name: read[string](o["name"]), N: read[int](o["n"]), Inner: Pair{"ik", "iv"}}
		b.Any = value(o["any"])
		b.List = read[[]string](o["list"])
		if next := read[[]string](o["next"]); next != nil {
			b.Next = &Pair{next[0], next[1]}
		}
		return b
	case "$func":
		return values[read[string](raw)]
	case "$level":
		return Level(read[int](raw))
	case "$nilstrings":
		return []string(nil)
	case "$nilmap":
		return map[string]interface{}(nil)
	}
	panic("no such type: " + kind)
}

// A value from its description.
func value(raw json.RawMessage) interface{} {
	text := strings.TrimSpace(string(raw))
	switch {
	case text == "" || text == "null":
		return nil
	case text[0] == '"':
		return read[string](raw)
	case text == "true" || text == "false":
		return text == "true"
	case text[0] == '[':
		out := []interface{}{}
		for _, v := range read[[]json.RawMessage](raw) {
			out = append(out, value(v))
		}
		return out[:len(out):len(out)] // ours have no room behind them
	case text[0] == '{':
		o := read[object](raw)
		for k, v := range o {
			if len(o) == 1 && strings.HasPrefix(k, "$") {
				return typed(k, v)
			}
		}
		return mapOf(raw)
	}
	return number(text)
}
