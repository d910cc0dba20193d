//! Pickles that do what those of weights do not.

use hydit_pickle::{Error, read};

use crate::build::{
    file, global, hooks, int, ints, one, op, pickle, storage, tensor, tensor_of, text,
};
use crate::{Case, refuse};

/// A case of a pickle whose dictionary has this value.
fn value(what: &'static str, value: &[u8], expected: &'static str) -> Case {
    (what, file(&one(value)), expected)
}

/// A case of a pickle of protocol 2 with this body.
fn body(what: &'static str, body: &[u8], expected: &'static str) -> Case {
    (what, file(&pickle(body)), expected)
}

#[test]
fn nothing_is_called_but_what_weights_need() {
    let call =
        |module: &str, name: &str| op(&[&global(module, name), b"(", &text("touch owned"), b"tR"]);
    let stacked = op(&[&text("builtins"), &text("eval"), b"\x93"]);
    let get_set = op(&[&text("builtins"), &text("set"), b"\x93"]);
    let ordered = hooks();
    let long = "m".repeat(300);
    refuse(&[
        value(
            "system",
            &call("posix", "system"),
            "it wants Python's `posix.system`, which is never",
        ),
        value(
            "os",
            &call("os", "system"),
            "`os.system`, which is never run here; load the file once",
        ),
        value("eval", &call("builtins", "eval"), "`builtins.eval`"),
        value("exec", &call("__builtin__", "exec"), "`__builtin__.exec`"),
        value("getattr", &call("builtins", "getattr"), "`builtins.getattr`"),
        value("popen", &call("subprocess", "Popen"), "`subprocess.Popen`"),
        value("runpy", &call("runpy", "_run_code"), "`runpy._run_code`"),
        value("webbrowser", &call("webbrowser", "open"), "`webbrowser.open`"),
        value("torch.load", &call("torch", "load"), "`torch.load`"),
        value("hub", &call("torch.hub", "load"), "`torch.hub.load`"),
        value("serialization", &call("torch.serialization", "load"), "`torch.serialization.load`"),
        value("a dotted name", &global("torch", "serialization.os.system"), "os.system`"),
        value("a longer module", &global("collections.abc", "OrderedDict"), "`collections.abc.Ord"),
        value("a shifted dot", &global("torch", "_utils._rebuild_tensor_v2"), "`torch._utils._reb"),
        value("another case", &global("torch", "floatstorage"), "`torch.floatstorage`"),
        value("no name", &global("", ""), "`.`"),
        value("a name with controls", &global("os\x1b[2J", "system"), "`os\u{fffd}[2J.system`"),
        value("a long name", &global(&long, "x"), "longer than 256 bytes"),
        value("a name that is cut off", b"ctorch", "is cut off"),
        value("a name that is no text", b"c\xff\nx\n", "or no text"),
        value("eval of the stack", &stacked, "`builtins.eval`"),
        value(
            "a long name of the stack",
            &op(&[&text("builtins"), &text(&long), b"\x93"]),
            "more than 256 bytes",
        ),
        value(
            "a name of the stack in lines",
            &op(&[&text("a\nb"), &text("c"), b"\x93"]),
            "a\u{fffd}b.c",
        ),
        value("numbers of the stack", b"K\x01K\x02\x93", "is no text"),
        value("a class of the stack", &op(&[&text("builtins"), &get_set, b"\x93"]), "is no text"),
        value("a call of a text", &op(&[&text("eval"), b")R"]), "it calls a text"),
        value("a call of a result", &op(&[&ordered, b")R"]), "it calls a dictionary"),
        value(
            "a call of a tensor",
            &op(&[&tensor("0", 0, &[6], &[1]), b")R"]),
            "it calls a tensor",
        ),
        value(
            "a call with a list",
            &op(&[&global("builtins", "set"), b"]R"]),
            "arguments are a list",
        ),
        value(
            "a call of a storage",
            &op(&[&global("torch", "FloatStorage"), b")R"]),
            "is called with",
        ),
        value("a call of a type", &op(&[&global("torch", "float16"), b")R"]), "is called with"),
        value(
            "a set of a number",
            &op(&[&global("builtins", "set"), b"K\x01\x85R"]),
            "an integer; exp",
        ),
        value(
            "a dictionary from a list",
            &op(&[&global("collections", "OrderedDict"), b"]\x85R"]),
            "OrderedDict is called with arguments that torch.save does not write",
        ),
        value(
            "a device of a number",
            &op(&[&global("torch", "device"), b"K\x01\x85R"]),
            "Device is",
        ),
        value(
            "a parameter of a text",
            &op(&[
                &global("torch._utils", "_rebuild_parameter"),
                &text("x"),
                b"\x88",
                &hooks(),
                b"\x87R",
            ]),
            "RebuildParameter is called",
        ),
        value("NEWOBJ", &op(&[&global("collections", "OrderedDict"), b")\x81"]), "NEWOBJ"),
        value(
            "NEWOBJ with arguments",
            &op(&[&global("argparse", "Namespace"), b"K\x01\x85\x81"]),
            "NEWOBJ with arguments",
        ),
        value("NEWOBJ_EX", &op(&[&global("collections", "OrderedDict"), b")}\x92"]), "NEWOBJ_EX"),
        value("INST", b"(ios\nsystem\n", "instruction INST"),
        value("OBJ", &op(&[b"(", &global("builtins", "set"), b"o"]), "instruction OBJ"),
        value("EXT1", b"\x82\x01", "instruction EXT"),
        value("EXT2", b"\x83\x01\x01", "instruction EXT"),
        value("EXT4", b"\x84\x01\x01\x01\x01", "instruction EXT"),
        value("PERSID", b"Pid\n", "instruction PERSID"),
        value("BUILD of a dictionary", b"}}b", "sets the state of a dictionary by a dictionary"),
        value(
            "BUILD of a class",
            &op(&[&global("builtins", "set"), b"}b"]),
            "state of a class or func",
        ),
        value(
            "BUILD of a tensor",
            &op(&[&tensor("0", 0, &[6], &[1]), b"}b"]),
            "the state of a tensor",
        ),
        value(
            "BUILD by a tuple",
            &op(&[&ordered, b"N}\x86b"]),
            "the state of a dictionary by a tuple",
        ),
        value(
            "a class as a value",
            &global("builtins", "set"),
            "`weight`: the class or function Set",
        ),
        value(
            "a storage as a value",
            &storage("FloatStorage", "0", 6),
            "`weight`: a storage without",
        ),
    ]);
}

#[test]
fn tensors_that_lie_are_refused() {
    let at = |offset: &[u8], sizes: &[u8], strides: &[u8]| {
        tensor_of(&storage("FloatStorage", "0", 6), offset, sizes, strides)
    };
    let of = |storage: &[u8]| tensor_of(storage, &int(0), &ints(&[1]), &ints(&[1]));
    let reference = |parts: &[u8]| of(&op(&[b"(", parts, b"tQ"]));
    let class = global("torch", "FloatStorage");
    let untyped = op(&[
        b"(",
        &text("storage"),
        &global("torch.storage", "UntypedStorage"),
        &text("0"),
        &text("cpu"),
        &int(24),
        b"tQ",
    ]);
    let third = |storage: &[u8], dtype: &[u8]| {
        let function = global("torch._utils", "_rebuild_tensor_v3");
        let hooks = hooks();
        let view = op(&[&int(0), &ints(&[1]), &ints(&[1])]);
        op(&[&function, b"(", storage, &view, b"\x89", &hooks, dtype, b"tR"])
    };
    assert!(read(&file(&one(&third(&untyped, &global("torch", "uint16"))))).is_ok());
    let second = |hooks: &[u8], rest: &[u8]| {
        let function = global("torch._utils", "_rebuild_tensor_v2");
        let view = op(&[&storage("FloatStorage", "0", 6), &int(0), &ints(&[1]), &ints(&[1])]);
        op(&[&function, b"(", &view, b"\x89", hooks, rest, b"tR"])
    };
    let negative = op(&[b"}", &text("neg"), b"\x88s"]);
    let max = i64::MAX;
    refuse(&[
        value(
            "too large",
            &tensor("0", 0, &[7], &[1]),
            "`weight`: shape [7], strides [1], offset 0 is",
        ),
        value("too far", &tensor("0", 5, &[2], &[1]), "beyond its storage of 6 elements"),
        value("a stride of 2^63", &tensor("0", 0, &[2], &[max]), "beyond its storage"),
        value("strides of 2^63", &tensor("0", 0, &[3, 3], &[max, max]), "beyond its storage"),
        value("an offset of 2^63", &tensor("0", max, &[1], &[1]), "beyond its storage"),
        value(
            "a size of 2^63",
            &tensor("0", 0, &[max], &[0]),
            "has more elements than its storage",
        ),
        value("sizes of 2^63", &tensor("0", 0, &[max, 4], &[0, 0]), "beyond its storage"),
        value("no elements of 2^63", &tensor("0", 0, &[0, max, max], &[1, 1, 1]), "beyond"),
        value("an expanded view", &tensor("0", 0, &[7, 1], &[0, 1]), "an expanded view; save its"),
        value("a negative size", &at(&int(0), &ints(&[-1]), &ints(&[1])), "negative numbers"),
        value(
            "a negative LONG1",
            &at(b"\x8a\x01\xff", &ints(&[1]), &ints(&[1])),
            "negative numbers",
        ),
        value("a negative stride", &tensor("0", 5, &[6], &[-1]), "negative numbers"),
        value(
            "an offset of 2^64",
            &at(b"\x8a\x09\0\0\0\0\0\0\0\0\x01", &ints(&[1]), &ints(&[1])),
            "9 bytes",
        ),
        value(
            "an offset that is no number",
            &at(&text("0"), &ints(&[1]), &ints(&[1])),
            "its offset is a",
        ),
        value("a shape that is a list", &at(&int(0), b"]", &ints(&[1])), "no tuple of at most 64"),
        value(
            "a shape of texts",
            &at(&int(0), &op(&[&text("1"), b"\x85"]), &ints(&[1])),
            "no tuple",
        ),
        value("65 dimensions", &tensor("0", 0, &[1; 65], &[1; 65]), "no tuple of at most 64"),
        value("too few strides", &tensor("0", 0, &[1, 1], &[1]), "2 dimensions and 1 strides"),
        value("a missing storage", &tensor("1", 0, &[1], &[1]), "its storage `data/1` is missing"),
        value(
            "a storage above",
            &tensor("../version", 0, &[1], &[1]),
            "`data/../version` is missing",
        ),
        value("a nameless storage", &tensor("", 0, &[1], &[1]), "its storage `data/` is missing"),
        value(
            "a long storage",
            &of(&storage("FloatStorage", "0", 7)),
            "24 bytes; expected 7 elements of 4",
        ),
        value("a short storage", &of(&storage("FloatStorage", "0", 5)), "expected 5 elements of 4"),
        value("another type", &of(&storage("DoubleStorage", "0", 6)), "expected 6 elements of 8"),
        value(
            "a storage of 2^63",
            &of(&storage("DoubleStorage", "0", max)),
            "24 bytes; expected 9223",
        ),
        value("a negative storage", &of(&storage("FloatStorage", "0", -6)), "expected -6 elements"),
        value(
            "a quantized storage",
            &of(&storage("QInt8Storage", "0", 24)),
            "`torch.QInt8Storage`",
        ),
        value("no storage", &of(&text("0")), "its storage is a text"),
        value("a reference of one part", &reference(&text("storage")), "has not five parts"),
        value(
            "a reference to a module",
            &reference(&op(&[&text("module"), &class, &text("0"), &text("cpu"), &int(6)])),
            "whose parts are of other types",
        ),
        value(
            "a reference without a class",
            &reference(&op(&[
                &text("storage"),
                &text("FloatStorage"),
                &text("0"),
                &text("cpu"),
                &int(6),
            ])),
            "whose parts are of other types",
        ),
        value(
            "a reference by number",
            &reference(&op(&[&text("storage"), &class, &int(0), &text("cpu"), &int(6)])),
            "whose parts are of other types",
        ),
        value("a reference that is a text", &of(&op(&[&text("0"), b"Q"])), "that is no tuple"),
        value("bytes without a type", &of(&untyped), "its storage has no element type"),
        value(
            "two types",
            &third(&storage("FloatStorage", "0", 6), &global("torch", "int8")),
            "two element",
        ),
        value("a type that is none", &third(&untyped, &text("int8")), "no torch.dtype"),
        value("an unknown type", &third(&untyped, &global("torch", "qint8")), "`torch.qint8`"),
        value(
            "hooks",
            &second(&op(&[b"}", &text("x"), b"Ns"]), b""),
            "its hooks are not an empty dict",
        ),
        value("a negated view", &second(&hooks(), &negative), "a conjugate or negative view"),
        value("too many arguments", &second(&hooks(), b"NN"), "RebuildTensor(2) is called with"),
        value(
            "too few arguments",
            &op(&[&global("torch._utils", "_rebuild_tensor_v2"), b")R"]),
            "is called",
        ),
    ]);
}

#[test]
fn pickles_that_are_broken_are_refused() {
    let deep = op(&[&b"]".repeat(70), &b"a".repeat(69)]);
    let itself = op(&[b"}q\x00", &text("a"), b"h\x00s"]);
    let twice = op(&[b"}(", &text("a"), b"N", &text("a"), b"Nu"]);
    let long = text(&"k".repeat(513));
    let name = text(&"k".repeat(300));
    let frame =
        |length: u64, body: &[u8]| file(&op(&[b"\x80\x04\x95", &length.to_le_bytes(), body]));
    let none = "the stack is empty";
    refuse(&[
        body("nothing", b"", none),
        ("no bytes", file(b""), "no pickle of protocol 2"),
        ("half a protocol", file(b"\x80"), "cut off"),
        ("no STOP", file(b"\x80\x02}"), "byte 3: the pickle is cut off"),
        ("protocol 0", file(b"(dp0\n."), "no pickle of protocol 2 or newer"),
        ("protocol 1", file(b"\x80\x01}."), "protocol 1; expected 2 to 5"),
        ("protocol 6", file(b"\x80\x06}."), "protocol 6; expected 2 to 5"),
        body("two protocols", b"\x80\x02}", "a second PROTO"),
        body("more than one object", b"}}", "ends with more than one object"),
        body("a mark at the end", b"}(}", "ends with more than one object"),
        body("two ends", b"}.}", "something follows the end"),
        body("no list", b"Na", none),
        body("no list below", b"(Ne", none),
        body("APPEND below a mark", b"](Na", none),
        body("no mark", b"]e", "there is no mark"),
        body("no mark for a tuple", b"Nt", "there is no mark"),
        body("TUPLE3 of two", b"NN\x87", none),
        body("a tuple below a mark", b"NN(N\x87", none),
        body("SETITEM of nothing", b"}Ns", none),
        body("an item of a list", b"]NNs", "it sets an item of a list"),
        body("an item of a number", b"K\x01NNs", "it sets an item of an integer"),
        body("an addition to a dictionary", b"}Na", "it appends to a dictionary"),
        body("APPEND to a set", b"\x8fNa", "it appends to a set"),
        body("ADDITEMS to a list", b"](N\x90", "it adds items to a list"),
        body("APPEND to a tuple", b")Na", "it appends to a tuple"),
        body("a key without a value", b"}(NNNu", "a key without a value"),
        body("memo of nothing", b"q\x00", none),
        body("memo 5 first", b"}q\x05", "memo 5 after 0"),
        body("memo of gigabytes", b"}r\xff\xff\xff\xff", "memo 4294967295 after 0"),
        body("an empty memo", b"h\x00", "memo 0, where nothing was put"),
        body("an empty long memo", b"j\xff\xff\xff\xff", "memo 4294967295, where nothing"),
        body("DUP", b"}2", "instruction DUP"),
        body("many DUP", &[b"}".as_slice(), &b"2".repeat(1000)].concat(), "instruction DUP"),
        body("POP", b"}}0", "instruction POP"),
        body("POP_MARK", b"}(1", "instruction POP_MARK"),
        body("LONG4 of gigabytes", b"\x8b\xff\xff\xff\x7f", "instruction LONG4"),
        body(
            "LONG1 of 255 bytes",
            &[b"\x8a\xff".as_slice(), &[0xff; 255]].concat(),
            "of 255 bytes",
        ),
        body("LONG1 beyond the end", b"\x8a\x08\x01", "cut off"),
        body("INT", b"I1\n", "instruction INT"),
        body("STRING", b"S'x'\n", "a text of Python 2"),
        body("bytes", b"C\x01x", "a bytes object"),
        body("bytes of exabytes", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", "a bytes object"),
        body("a buffer", b"\x97", "a buffer outside"),
        body("an unknown instruction", b"\xff", "instruction 0xff"),
        body("a text of gigabytes", b"X\xff\xff\xff\xff", "a text of 4294967295 bytes"),
        body(
            "a text of exabytes",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
            "expected at most 1048576",
        ),
        body("a text beyond the end", b"X\xff\0\0\0abc", "cut off"),
        body("a text that is none", b"X\x02\0\0\0\xff\xfe", "a text that is not UTF-8"),
        body("a number beyond the end", b"G\0\0", "cut off"),
        ("a frame beyond the end", frame(9, b"}."), "a frame of 9 bytes is cut off"),
        ("a frame of exabytes", frame(u64::MAX, b"}."), "is cut off"),
        ("a frame that ends early", frame(4, b"X\x01\0\0\0a."), "beyond its frame"),
        ("a frame that ends late", frame(3, b"}.x"), "the pickle ends, but not its frame"),
        ("frames in frames", frame(11, b"\x95\x02\0\0\0\0\0\0\0}."), "a frame inside a frame"),
        body("nested", &deep, "nested more than 64 deep"),
        body("a dictionary in itself", &itself, "`a`: it contains itself"),
        body("a list in itself", b"]q\x00h\x00a", "`0`: it contains itself"),
        body("a list in its tuple", b"]q\x00h\x00\x85a", "`0.0`: it contains itself"),
        body("a key twice", &twice, "``: the key \"a\" is in it twice"),
        body("a number twice", b"}(K\x01NK\x01Nu", "the key 1 is in it twice"),
        body("None as a key", b"}NNs", "a key is None; expected a text or an integer"),
        body("a tuple as a key", b"})Ns", "a key is a tuple"),
        body("a long key", &op(&[b"}", &long, b"Ns"]), "more than 512 bytes"),
        body(
            "long keys",
            &op(&[b"}", &name, b"}", &name, b"Nss"]),
            "a name of more than 512 bytes",
        ),
        body("marks", &b"(".repeat(2000), "more than 1024 marks"),
        body("a high stack", &b"N".repeat(70_000), "more than 65536 objects on the stack"),
        ("a long pickle", file(&pickle(&vec![b'N'; 17 << 20])), "17825795 bytes; expected at most"),
    ]);
}

#[test]
fn arguments_of_a_program_beside_weights_are_dropped() {
    let arguments = op(&[&global("argparse", "Namespace"), b")\x81}", &text("lr"), b"K\x01sb"]);
    let pairs = op(&[&text("w"), &tensor("0", 0, &[6], &[1]), &text("args"), &arguments]);
    let bytes = file(&pickle(&op(&[b"}(", &pairs, b"u"])));
    let tree = read(&bytes).expect("a checkpoint");
    assert_eq!(tree.tensors().expect("names").len(), 1);
}

#[test]
fn two_tensors_of_one_name_are_refused() {
    let tensor = tensor("0", 0, &[6], &[1]);
    let inner = op(&[b"}", &text("b"), &tensor, b"s"]);
    let outer = op(&[b"}(", &text("a.b"), &tensor, &text("a"), &inner, b"u"]);
    let file = file(&pickle(&outer));
    let value = read(&file).expect("it is read");
    let error: Error = value.tensors().expect_err("a refusal");
    let message = error.to_string();
    assert!(message.starts_with("`a.b`: two tensors have this name; load the file"), "{message}");
}
