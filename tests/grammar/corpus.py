"""Schemas as people send them. SAME: our masks are llguidance's at every step (test_masks.py). OURS: they may differ,
for the reason given there; only timed so far (benchmarks/grammar)."""

STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
BOOLEAN, NULL = {"type": "boolean"}, {"type": "null"}


def obj(properties, required=None, **more):
    return {"type": "object", "properties": properties,
            "required": list(properties) if required is None else required,
            "additionalProperties": False, **more}


def arr(items, **more):
    return {"type": "array", "items": items, **more}


def ref(name):
    return {"$ref": f"#/$defs/{name}"}


def enum(*values):
    return {"enum": list(values)}


ADDRESS = obj({"street": STRING, "city": STRING, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}})
TREE = {"$defs": {"node": obj({"value": INTEGER, "children": arr(ref("node"))})}, "$ref": "#/$defs/node"}
LINKED = {"$defs": {"n": obj({"v": STRING, "next": {"anyOf": [ref("n"), NULL]}})}, **ref("n")}
EXPR = {"$defs": {
    "e": {"anyOf": [INTEGER, ref("op")]},
    "op": obj({"op": enum("+", "-", "*"), "l": ref("e"), "r": ref("e")})}, **ref("e")}
PERSON = obj({"name": STRING, "age": INTEGER, "email": {"type": ["string", "null"]}})
TOOL_A = obj({"name": {"const": "get_weather"}, "arguments": obj({"city": STRING, "unit": enum("C", "F")}, ["city"])})
TOOL_B = obj({"name": {"const": "get_time"}, "arguments": obj({"tz": STRING})})
UI = {"$defs": {"el": obj({"type": enum("div", "button", "field"), "label": STRING, "children": arr(ref("el")),
                           "attributes": arr(obj({"name": STRING, "value": STRING}))})}, **ref("el")}

SAME = {
    "string": STRING,
    "integer": INTEGER,
    "number": NUMBER,
    "boolean": BOOLEAN,
    "null": NULL,
    "anything": {},
    "any object": {"type": "object"},
    "any array": {"type": "array"},
    "string or null": {"type": ["string", "null"]},
    "number or boolean": {"type": ["number", "boolean"]},
    "all scalars": {"type": ["string", "integer", "boolean", "null"]},
    "enum of strings": enum("red", "green", "blue"),
    "enum with shared starts": enum("a", "ab", "abc", "abcd", "b"),
    "enum of kinds": enum("x", 1, 2.5, True, None),
    "enum of numbers": enum(1, 10, 100, 1000),
    "enum of objects": enum({"a": 1}, {"a": 2, "b": [1, 2]}),
    "enum of unicode": enum("żółw", "ząb", "žába", "日本", "日光", "🙂", "🙃"),

    "enum with escapes": enum('say "hi"', "back\\slash", "tab\there", "new\nline"),
    "enum of spaces": enum(" ", "  ", "   x"),
    "long enum": enum(*[f"option_{i:03d}" for i in range(200)]),
    "const string": {"const": "fixed"},
    "const number": {"const": 42},
    "const object": {"const": {"k": ["v", None, False]}},
    "const empty string": {"const": ""},
    "empty object": obj({}),
    "one property": obj({"a": STRING}),
    "two properties": obj({"a": STRING, "b": INTEGER}),
    "all optional": obj({"a": STRING, "b": INTEGER, "c": BOOLEAN}, []),
    "first optional": obj({"a": STRING, "b": INTEGER}, ["b"]),
    "last optional": obj({"a": STRING, "b": INTEGER}, ["a"]),
    "middle required": obj({"a": STRING, "b": INTEGER, "c": NULL}, ["b"]),
    "many optional": obj({f"p{i}": INTEGER for i in range(30)}, []),
    "many required": obj({f"field_{i}": STRING for i in range(40)}),
    "names that start alike": obj({"id": INTEGER, "ids": arr(INTEGER), "identifier": STRING}, ["ids"]),
    "unicode names": obj({"имя": STRING, "年齢": INTEGER, "naïve": BOOLEAN}),
    "name with a quote": obj({'a"b': INTEGER, "c\\d": INTEGER}),
    "open object": {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]},
    "open object, optional": {"type": "object", "properties": {"a": INTEGER, "ab": STRING}},
    "map to numbers": {"type": "object", "additionalProperties": NUMBER},
    "map to arrays": {"type": "object", "additionalProperties": arr(BOOLEAN)},
    "map with a known name": {"type": "object", "properties": {"total": INTEGER}, "required": ["total"],
                              "additionalProperties": STRING},
    "nested objects": obj({"a": obj({"b": obj({"c": obj({"d": INTEGER})})})}),
    "person": PERSON,
    "people": arr(PERSON),
    "person with address": obj({"name": STRING, "address": ADDRESS}),
    "addresses": obj({"home": ADDRESS, "work": ADDRESS}, ["home"]),
    "array of strings": arr(STRING),
    "array of enums": arr(enum("x", "y", "z")),
    "array of arrays": arr(arr(arr(INTEGER))),
    "at least one": arr(INTEGER, minItems=1),
    "at most three": arr(INTEGER, maxItems=3),
    "two to four": arr(BOOLEAN, minItems=2, maxItems=4),
    "exactly three": arr(NUMBER, minItems=3, maxItems=3),
    "up to a hundred": arr(NULL, maxItems=100),
    "empty array only": arr(STRING, maxItems=0),
    "tuple": {"type": "array", "prefixItems": [STRING, INTEGER, BOOLEAN], "items": False, "minItems": 3},
    "tuple and more": {"type": "array", "prefixItems": [STRING], "items": INTEGER, "minItems": 1},
    "optional tuple": {"type": "array", "prefixItems": [NULL, BOOLEAN], "items": False},
    "short text": {"type": "string", "maxLength": 5},
    "long text": {"type": "string", "maxLength": 200},
    "some text": {"type": "string", "minLength": 1},
    "text of a length": {"type": "string", "minLength": 3, "maxLength": 8},
    "exact text": {"type": "string", "minLength": 4, "maxLength": 4},
    "digits": {"type": "string", "pattern": "^[0-9]+$"},
    "phone": {"type": "string", "pattern": r"^\+?[0-9]{1,3}-[0-9]{3}-[0-9]{4}$"},
    "slug": {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
    "identifier": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,30}$"},
    "hex colour": {"type": "string", "pattern": "^#([0-9a-f]{3}|[0-9a-f]{6})$"},
    "words": {"type": "string", "pattern": "^(yes|no|maybe)( (yes|no|maybe)){0,4}$"},
    "lower case": {"type": "string", "pattern": "^[a-z]{2,12}$"},
    "version": {"type": "string", "pattern": r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$"},
    "Cyrillic": {"type": "string", "pattern": "^[а-я]{1,10}$"},
    "anyOf scalars": {"anyOf": [STRING, INTEGER, NULL]},
    "anyOf objects": {"anyOf": [obj({"a": INTEGER}), obj({"b": STRING})]},
    "anyOf with one start": {"anyOf": [obj({"kind": {"const": "x"}, "a": INTEGER}),
                                       obj({"kind": {"const": "y"}, "b": STRING})]},
    "anyOf arrays": {"anyOf": [arr(INTEGER), arr(STRING)]},
    "anyOf that overlap": {"anyOf": [obj({"a": STRING, "b": INTEGER}), obj({"a": STRING, "c": INTEGER})]},
    "oneOf kinds": {"oneOf": [STRING, INTEGER, BOOLEAN]},
    "optional field by null": obj({"x": {"anyOf": [NUMBER, NULL]}}),
    "tools": {"anyOf": [TOOL_A, TOOL_B]},
    "list of tools": arr({"anyOf": [TOOL_A, TOOL_B]}, minItems=1),
    "tree": TREE,
    "linked list": LINKED,
    "expression": EXPR,
    "user interface": UI,
    "mutual recursion": {"$defs": {"a": obj({"b": {"anyOf": [ref("b"), NULL]}}), "b": obj({"a": arr(ref("a"))})},
                         **ref("a")},
    "root recursion": {"type": "object", "properties": {"v": INTEGER, "sub": {"$ref": "#"}}, "required": ["v"],
                       "additionalProperties": False},
    "definitions": {"definitions": {"p": PERSON}, "type": "object",
                    "properties": {"boss": {"$ref": "#/definitions/p"}}, "required": ["boss"],
                    "additionalProperties": False},
    "ref with description": {"$defs": {"c": enum("r", "g")}, **obj(
        {"c": {"$ref": "#/$defs/c", "description": "a colour"}})},
    "annotations": {"title": "T", "description": "d", "$comment": "c", "examples": [1], "default": 3, **INTEGER},
    "extraction": obj({"invoice": STRING, "lines": arr(obj({"item": STRING, "qty": INTEGER, "price": NUMBER})),
                       "paid": BOOLEAN, "notes": {"type": ["string", "null"]}}),
    "steps": obj({"steps": arr(obj({"explanation": STRING, "output": STRING})), "final_answer": STRING}),
    "calendar": obj({"name": STRING, "participants": arr(STRING), "priority": enum("low", "high")}),
    "classification": obj({"label": enum("spam", "ham"), "why": {"type": "string", "maxLength": 80}}),
    "geojson": obj({"type": {"const": "Point"}, "coordinates": arr(NUMBER, minItems=2, maxItems=3)}),
    "query": obj({"table": enum("orders", "customers"), "columns": arr(STRING),
                  "conditions": arr(obj({"column": STRING, "operator": enum("=", ">", "<", "!="),
                                         "value": {"anyOf": [STRING, NUMBER]}})),
                  "order": enum("asc", "desc")}),
    "deep array": arr(arr(arr(arr(obj({"x": INTEGER}))))),
    "true": {"type": "array", "items": True},
    "allOf of one": {"allOf": [PERSON]},
}

# Bounded numbers: llguidance also takes "-0". Lengths: it counts an escaped pair as two. Formats: each has its own
# reading of the RFC. Others: what it refuses or reads otherwise.
OURS = {
    "positive": {"type": "integer", "minimum": 1},
    "percent": {"type": "integer", "minimum": 0, "maximum": 100},
    "negative": {"type": "integer", "maximum": -1},
    "around zero": {"type": "integer", "minimum": -17, "maximum": 123},
    "exclusive": {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 9},
    "fractional bounds of integers": {"type": "integer", "minimum": -2.5, "maximum": 7.01},
    "year": {"type": "integer", "minimum": 1900, "maximum": 2100},
    "large": {"type": "integer", "minimum": 999999, "maximum": 10000000000},
    "unit": {"type": "number", "minimum": 0, "maximum": 1},
    "open unit": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "latitude": {"type": "number", "minimum": -90, "maximum": 90},
    "narrow": {"type": "number", "minimum": 1.25, "maximum": 1.375},
    "narrow negative": {"type": "number", "minimum": -0.05, "exclusiveMaximum": -0.0025},
    "no minimum": {"type": "number", "maximum": 3.5},
    "no maximum": {"type": "number", "exclusiveMinimum": 12.75},
    "one number": {"type": "number", "minimum": 2.5, "maximum": 2.5},
    "small bound": {"type": "number", "minimum": 1e-3, "maximum": 2.5e1},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "date-time": {"type": "string", "format": "date-time"},
    "duration": {"type": "string", "format": "duration"},
    "uuid": {"type": "string", "format": "uuid"},
    "email": {"type": "string", "format": "email"},
    "hostname": {"type": "string", "format": "hostname"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "ipv6": {"type": "string", "format": "ipv6"},
    "uri": {"type": "string", "format": "uri"},
    "pattern inside": {"type": "string", "pattern": "ab+c"},
    "pattern from the start": {"type": "string", "pattern": "^x[0-9]"},
    "pattern with a dot": {"type": "string", "pattern": "^.{2,6}$"},
    "pattern with classes": {"type": "string", "pattern": r"^\w+\s\d+$"},
    "pattern with a quote": {"type": "string", "pattern": '^"[a-z\\\\]+"$'},
    "pattern with alternatives": {"type": "string", "pattern": "^a|b$"},
    "unlisted required": {"type": "object", "properties": {"a": INTEGER}, "required": ["z", "a"],
                          "additionalProperties": BOOLEAN},
    "allOf": {"allOf": [{"type": "object", "properties": {"a": INTEGER}, "required": ["a"]},
                        {"type": "object", "properties": {"b": STRING}, "required": ["b"]}]},
    "allOf on one property": {"allOf": [{"properties": {"a": {"minimum": 3}}},
                                        {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]}]},
    "allOf with a ref": {"$defs": {"base": {"type": "object", "properties": {"id": INTEGER}, "required": ["id"]}},
                         "allOf": [ref("base"), {"properties": {"name": STRING}, "required": ["name"]}]},
    "anyOf beside properties": {"type": "object", "properties": {"a": INTEGER, "b": INTEGER},
                                "additionalProperties": False, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "oneOf by a tag": {"oneOf": [obj({"t": {"const": 1}, "x": STRING}), obj({"t": {"const": 2}, "x": INTEGER})]},
    "enum with a type": {"type": "string", "enum": ["a", "b", 3]},
    "properties without a type": {"properties": {"a": INTEGER}, "required": ["a"]},
    "nullable": {"type": "string", "nullable": True},
    "array of bounded": arr({"type": "integer", "minimum": 1, "maximum": 6}, minItems=2, maxItems=5),
    "rating": obj({"stars": {"type": "integer", "minimum": 1, "maximum": 5}, "text": {"type": "string",
                                                                                     "maxLength": 140}}),
}
