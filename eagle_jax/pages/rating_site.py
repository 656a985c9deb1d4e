"""The raters' pages: consent, one form after the other, and for who holds the key the results.

A rater is known by a code, which is in the address of the forms and can be typed in later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from eagle_jax.data.prompts import MalformedText
from eagle_jax.eagle.evaluation.rater_form import read_rater_answer
from eagle_jax.pages import rating_results
from eagle_jax.pages.rated_run import RatedRun
from eagle_jax.pages.rating_csv import to_csv
from eagle_jax.pages.rating_store import Form, RatingStore, is_code
from eagle_jax.pages.web import make_app, page, sent_fields

_TITLE = "Rate texts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatingSite:
    """consent: paragraphs that are shown before anything is asked. token: of the address; may be
    empty. key: of the results."""

    run: RatedRun
    store: RatingStore
    consent: Sequence[str]
    token: str
    key: str

    def app(self) -> Starlette:
        """The pages as an ASGI application."""
        routes = [
            Route("/", self._start),
            Route("/begin", self._begin, methods=["POST"]),
            Route("/resume", self._resume, methods=["POST"]),
            Route("/form/{code}", self._form),
            Route("/form/{code}", self._answer, methods=["POST"]),
            Route("/results/{key}", self._results),
            Route("/answers.csv/{key}", self._csv),
        ]
        return make_app(routes, self.token, title=_TITLE)

    @property
    def _root(self) -> str:
        return self.token and f"/{self.token}"

    def _start(self, request: Request) -> Response:
        return page("consent", root=self._root, consent=self.consent, problem=None)

    async def _begin(self, request: Request) -> Response:
        if (await sent_fields(request)).get("agreed") != "yes":
            problem = "To take part, say that you agree."
            return page("consent", 400, root=self._root, consent=self.consent, problem=problem)
        return self._to_form(await run_in_threadpool(self.store.new_rater))

    async def _resume(self, request: Request) -> Response:
        code = is_code((await sent_fields(request)).get("code", ""))
        if code is None or not await run_in_threadpool(self.store.knows, code):
            problem = "Nobody has this code. It has twelve letters and digits; look at it again."
            return page("consent", 400, root=self._root, consent=self.consent, problem=problem)
        return self._to_form(code)

    def _to_form(self, code: str) -> Response:
        return RedirectResponse(f"{self._root}/form/{code}", 303)

    def _form(self, request: Request) -> Response:
        code = request.path_params["code"]
        form = self._current(code)
        return self._thanks(code) if form is None else self._shown(form, code)

    async def _answer(self, request: Request) -> Response:
        code = request.path_params["code"]
        fields = await sent_fields(request)
        form = await run_in_threadpool(self._current, code)
        # The form of another tab, or one that was sent twice: it has its answers already.
        if form is None or fields.get("place") != str(form.place):
            return self._to_form(code)
        questions = self.run.items[form.item].questions
        words = {number: word for number in questions if (word := fields.get(f"q{number}")) is not None}
        try:
            answers = {number: read_rater_answer(number, word, questions) for number, word in words.items()}
        except MalformedText as error:
            raise HTTPException(400) from error
        if len(answers) < len(questions):
            return self._shown(form, code, words)
        await run_in_threadpool(self.store.answer, code, form.place, answers)
        return self._to_form(code)

    def _current(self, code: str) -> Form | None:
        try:
            return self.store.current_form(code)
        except KeyError:
            raise HTTPException(404) from None

    def _shown(self, form: Form, code: str, words: dict[int, str] | None = None) -> Response:
        """The form's page; `words`: what was answered, where it was sent and something is missing."""
        item = self.run.items[form.item]
        return page(
            "form",
            200 if words is None else 400,
            root=self._root,
            code=code,
            form=form,
            noun=self.run.noun,
            about=item.about,
            texts=item.texts(form.label),
            lead=self.run.form.lead,
            questions=item.questions,
            words=words or {},
            missing=[] if words is None else [number for number in item.questions if number not in words],
        )

    def _thanks(self, code: str) -> Response:
        text = f"Thank you: there is nothing left to rate. Your code was {code}."
        return page("message", root=self._root, title=_TITLE, text=text)

    def _results(self, request: Request) -> Response:
        self._check_key(request)
        context = rating_results.results(self.run, self.store.forms())
        return page(
            "results",
            root=self._root,
            key=self.key,
            noun=self.run.noun,
            columns=self.run.form.columns,
            told=self.run.form.told,
            measured=self.run.measured,
            is_blind=self.run.is_blind,
            **context,
        )

    def _csv(self, request: Request) -> Response:
        self._check_key(request)
        text = to_csv(self.store.forms(), self.run.items)
        return Response(
            text, media_type="text/csv", headers={"Content-Disposition": "attachment; filename=ratings.csv"}
        )

    def _check_key(self, request: Request) -> None:
        if request.path_params["key"] != self.key:
            raise HTTPException(404)
