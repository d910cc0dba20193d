"""Goldens of the emoji checkpoint's two tokenizers -> tokenizers.json

The ids and masks are what HunyuanDiTPipeline.encode_prompt hands to its text encoders (caught by a hook there):
padded to 77 and 256, truncated. Per text:

    bert, t5   the ids before the padding; the mask is 1 for these and 0 for the rest, which is the pad id
"""

import torch
from diffusers import HunyuanDiTPipeline

import golden

TEXTS = [
    "",
    " ",
    "\n\t",
    "蓝色背景上的猫",
    "黑色背景上的火箭",
    "白色背景上的生日蛋糕",
    "a rocket on a black background",
    "a red apple on a white background",
    "A Rocket On A BLACK Background",
    "  a   cat  on a\tblue background \n",
    "a cat 在蓝色背景上",
    "猫cat狗dog",
    "猫",
    "x",
    "zebra crossing near the university library",
    "一只戴着帽子的长颈鹿在月球上骑自行车,水彩画风格",
    "🚀",
    "🚀 on a 黑色 background 🐱",
    "👨‍👩‍👧‍👦 family",
    "❤️",
    "ａ　ｒｏｃｋｅｔ　ｏｎ　ａ　ｂｌａｃｋ　ｂａｃｋｇｒｏｕｎｄ",
    "蓝色背景上的猫。！？，：；",
    "ｶﾞｷﾞ ㌔ ① Ⅳ ﬁ ½",
    "café naïve façade",
    "cafe\u0301 nai\u0308ve",
    "ÀÉÎÕÜ ẞ İ ı",
    "Ωmega Яблоко தமிழ் العربية עברית",
    "おはようございます 한국어",
    "豈 更 車 賈",
    "don't stop -- it's 3.14, e.g. 1,000%",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "<pad> </s> <unk>",
    "a</s>b [SEP]c",
    "▁a ▁▁ _b_",
    "##ing ##",
    "a\u200bcat\u00a0on\u3000a\ufeffblue",
    "nul\u0000 del\u007f \ufffd soft\u00adhyphen",
    "supercalifragilisticexpialidocious" * 4,
    "a cat on a blue background and " * 20,
    "蓝色背景上的猫" * 20,
    "蓝色背景上的猫和 a dog on a red background, " * 30,
    "word " * 75 + "end",
    "猫" * 75,
    "猫" * 76,
    "猫" * 300,
]


def hand_over(pipe: HunyuanDiTPipeline, text: str, index: int) -> list[int]:
    """The ids that text encoder `index` is given, without the padding."""
    seen = {}

    def look(module, args, kwargs):
        seen.update(ids=args[0][0], mask=kwargs["attention_mask"][0])

    encoder = [pipe.text_encoder, pipe.text_encoder_2][index]
    hook = encoder.register_forward_pre_hook(look, with_kwargs=True)
    pipe.encode_prompt(text, do_classifier_free_guidance=False, text_encoder_index=index)
    hook.remove()
    ids, length = seen["ids"].tolist(), int(seen["mask"].sum())
    assert seen["mask"].tolist() == [1] * length + [0] * (len(ids) - length)
    assert set(ids[length:]) <= {0}, "padding is not 0"
    assert len(ids) == [77, 256][index]
    return ids[:length]


@torch.no_grad()
def main():
    pipe = HunyuanDiTPipeline.from_pretrained(golden.EMOJI)
    texts = [{"text": text, "bert": hand_over(pipe, text, 0), "t5": hand_over(pipe, text, 1)} for text in TEXTS]
    about = {"bert": {"length": 77, "pad_id": 0}, "t5": {"length": 256, "pad_id": 0}, "texts": texts}
    golden.write_json("tokenizers.json", about)
    print(f"tokenizers.json: {len(texts)} texts")


if __name__ == "__main__":
    main()
