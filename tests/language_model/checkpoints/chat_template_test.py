"""Prompts as turns of a chat are, token by token, those of `transformers`."""

import json

import pytest
import transformers

from eagle_jax.data.preferences.dialogues import plain_prompt
from eagle_jax.embeddings.sentences.tokenizer_files import TokenizerError
from eagle_jax.language_model.checkpoints import chat_template
from eagle_jax.language_model.checkpoints.chat_template import ChatTemplateError
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer

# Shortened from the checkpoints' own; whitespace control, filters and traps are theirs.
LLAMA_3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("26 Jul 2024") %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<start> system <end>\\n\\n" }}
{{- "Cutting Knowledge Date: w1\\nToday Date: " + date_string + "\\n\\n" + system_message }}
{{- " <turn>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<start> ' + message['role'] + ' <end>\\n\\n' + message['content'] | trim + ' <turn>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start> assistant <end>\\n\\n' }}
{%- endif %}
"""
GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Conversation roles must alternate') }}
    {% endif %}
    {% if (message['role'] == 'assistant') %}
        {% set role = 'model' %}
    {% else %}
        {% set role = message['role'] %}
    {% endif %}
{{ '<start> ' + role + '\\n' }}{% generation %}{{ message['content'] | trim + ' <turn>' }}\
{% endgeneration %}

{% endfor %}
{% if add_generation_prompt %}{{ '<start> model\\n' }}{% endif %}
"""
QWEN_3 = """\
{%- for message in messages %}
    {{- '<start>' + message.role + '\\n' + message.content + '<turn>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start>assistant\\n' }}
{%- endif %}
"""
ESCAPING = "{{ messages | tojson(indent=1) }}{{ unk_token }}{{ sep_token }}{{ eos_token }}"
TEMPLATES = {"llama": LLAMA_3, "gemma": GEMMA, "escaping": ESCAPING}
PROMPTS = ["w3 w1 #END_PLOT", "  w4\n\n w5 <turn> é & < '\"  ", ""]


def set_config(folder, **values):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def folder(request, tmp_path, tokenizer_writer):
    tokenizer_writer(tmp_path, with_bos=getattr(request, "param", True))
    set_config(tmp_path, pad_token="[PAD]", unk_token="[UNK]")
    return tmp_path


def chat(prompt):
    return [{"role": "user", "content": prompt}]


def assert_same_as_transformers(ours, folder):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for prompt in PROMPTS:
        expected = theirs.apply_chat_template(chat(prompt), add_generation_prompt=True, tokenize=False)
        assert ours.chat_template.render(prompt) == expected
        ids = theirs.apply_chat_template(chat(prompt), add_generation_prompt=True)["input_ids"]
        assert ours.encode_prompt(prompt) == ids


@pytest.mark.parametrize("folder", [True, False], indirect=True, ids=["with_bos", "without_bos"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_the_users_turn_and_turns_are_rendered_as_transformers_does(folder, name):
    set_config(folder, chat_template=TEMPLATES[name])
    ours = load_tokenizer(folder)
    assert_same_as_transformers(ours, folder)
    turns = [*chat("w3 w1"), {"role": "assistant", "content": " w4 "}, *chat("w5\n")]
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    expected = theirs.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert ours.chat_template.render_turns(turns) == expected
    # The beginning token is there once if the template writes it, not if only the post-processor.
    assert ours.encode_prompt("w3").count(1) == (name in ("llama", "gemma"))
    assert ours.encode("w3 w1") == ([1] if ours.encode("")[:1] == [1] else []) + [7, 5]


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_an_answer_begins_where_transformers_continues_the_last_turn(folder, name):
    set_config(folder, chat_template=TEMPLATES[name])
    turns = [*chat("w3 w1"), {"role": "assistant", "content": "w4"}, *chat("w5")]
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    begun = [*turns, {"role": "assistant", "content": "w6 w7"}]
    expected = theirs.apply_chat_template(begun, continue_final_message=True, tokenize=False)
    ours = load_tokenizer(folder)
    assert ours.chat_template.render(f"{plain_prompt(turns)} w6 w7") == expected
    # What is no dialogue up to its end is a user's turn.
    for text in (f"w1{plain_prompt(turns)} w6", f"{plain_prompt(turns)} w6\n\nHuman: w7"):
        assert ours.chat_template.render(text) == ours.chat_template.render_turns(chat(text))


def test_without_a_template_a_prompt_is_its_text(folder):
    ours = load_tokenizer(folder)
    assert ours.chat_template is None
    assert ours.encode_prompt("w3 w1") == ours.encode("w3 w1")


def test_the_file_goes_before_the_config_and_named_templates_are_kept(folder, tmp_path):
    set_config(folder, chat_template=LLAMA_3)
    (folder / "chat_template.jinja").write_text(GEMMA)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text(LLAMA_3)
    ours = load_tokenizer(folder)
    assert ours.chat_template.templates == {"default": GEMMA, "rag": LLAMA_3}
    assert_same_as_transformers(ours, folder)


@pytest.mark.parametrize("several", [False, True])
def test_what_is_saved_renders_the_same(folder, tmp_path, several):
    named = [{"name": "rag", "template": LLAMA_3}, {"name": "default", "template": ESCAPING}]
    set_config(folder, chat_template=named if several else ESCAPING)
    ours, saved = load_tokenizer(folder), tmp_path / "saved"
    saved.mkdir()
    ours.save(saved)
    again = load_tokenizer(saved)
    assert again.chat_template.templates == ours.chat_template.templates
    assert "[UNK]" in again.chat_template.render("w1")
    assert again.encode_prompt(PROMPTS[1]) == ours.encode_prompt(PROMPTS[1])
    assert_same_as_transformers(again, saved)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no users here') }}", "its chat template fails: .*no users here"),
        ("{{ messages[3]['content'] + 1 }}", "its chat template fails: UndefinedError"),
        ("{{ messages.append(3) }}", "its chat template fails: SecurityError"),
        ("{{ ''.__class__.__mro__ }}", "its chat template fails: SecurityError"),
        ("{{ 1 / 0 }}", "its chat template fails: ZeroDivisionError"),
        ("{% for %}", "is not Jinja"),
        ("{{ 'x' * 10**10 }}", "its chat template fails: MemoryError"),
        ([{"name": "rag", "template": "x"}], "needs a chat template .* named default"),
        ([{"name": "rag"}], "not a tokenizer, or not with the tokenizer_config.json beside it"),
        (7, "needs a chat template that is a text"),
    ],
)
def test_a_template_that_fails_is_reported_with_its_folder(folder, template, message):
    set_config(folder, chat_template=template)
    with pytest.raises((ChatTemplateError, TokenizerError), match=f"{folder}.*{message}"):
        load_tokenizer(folder).encode_prompt("w1")


def test_a_template_that_never_ends_is_ended(folder, monkeypatch):
    set_config(folder, chat_template="{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    monkeypatch.setattr(chat_template, "_SECONDS", 0.5)
    with pytest.raises(ChatTemplateError, match="not done after 0.5 s"):
        load_tokenizer(folder)
    monkeypatch.undo()
    set_config(folder, chat_template="{{ messages[0].content }} w2")  # in the next process
    assert load_tokenizer(folder).chat_template.render("w1") == "w1 w2"


def test_a_template_takes_arguments_of_its_own(folder):
    """Qwen 3's: an empty thought opens the answer where there is to be none."""
    told = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    set_config(folder, chat_template=QWEN_3 + told + "{{ style }}")
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for arguments in ({}, {"enable_thinking": False}, {"enable_thinking": True, "style": 'a "b"\n'}):
        expected = theirs.apply_chat_template(chat("w1 "), tokenize=False, add_generation_prompt=True, **arguments)
        assert ours.chat_template.with_arguments(arguments).render("w1 ") == expected
    with pytest.raises(ChatTemplateError, match="takes no argument 'enable_thoughts'"):
        ours.chat_template.with_arguments({"enable_thoughts": False})
    # What is saved says it by itself.
    ours.chat_template = ours.chat_template.with_arguments({"enable_thinking": False})
    ours.save(folder)
    assert "</think>" in load_tokenizer(folder).chat_template.render("w1 ")
    assert_same_as_transformers(load_tokenizer(folder), folder)


def test_the_day_that_a_template_sees_stays_that_of_the_first(folder):
    set_config(folder, chat_template="{{ strftime_now('%H:%M:%S.%f') }}")
    template = load_tokenizer(folder).chat_template
    assert template.render("w1") == template.render("w1")


def test_every_id_that_the_checkpoint_calls_the_end_is_one(folder):
    assert load_tokenizer(folder).eos_ids == (2,)
    (folder / "config.json").write_text('{"eos_token_id": 9}')
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 10]}')
    ours = load_tokenizer(folder)
    assert (ours.eos_id, ours.eos_ids) == (2, (2, 9, 10))
    assert ours.decode([4, 9, 5, 10, 2]) == "w0 w1"
    (folder / "generation_config.json").write_text('{"eos_token_id": ["2"]}')
    with pytest.raises(TokenizerError, match=r"generation_config.json: eos_token_id .* got '2'"):
        load_tokenizer(folder)
