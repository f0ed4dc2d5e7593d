"""Wrong: an uploader hands a picture to a thumbnailer, which hands it on to the gallery, and tells
the visitor meanwhile that it is there. Only messages of one sender to one receiver are in order:
the visitor may be at the gallery first. Corrected: the gallery tells him.
"""

from __future__ import annotations

from typing import Any

from actors import Actor, Message, Options, Ref, System

OPTIONS = Options()


class Upload(Message):
    picture: str


class Put(Message):
    picture: str
    then: Ref | None


class Look(Message):
    picture: str


class Show(Message):
    picture: str


class Gallery(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.pictures: set[str] = set()

    def on_receive(self, message: Message) -> Any:
        match message:
            case Put(picture, then):
                self.pictures.add(picture)
                if then is not None:
                    then.tell(Look(picture))
            case Show(picture):
                return picture in self.pictures
        return None


class Thumbnailer(Actor):
    def __init__(self, gallery: Ref) -> None:
        super().__init__()
        self.gallery = gallery

    def on_receive(self, message: Message) -> None:
        self.gallery.tell(message)


class Visitor(Actor):
    def __init__(self, gallery: Ref) -> None:
        super().__init__()
        self.gallery = gallery
        self.missed = False

    def on_receive(self, message: Message) -> Any:
        match message:
            case Look(picture):
                self.missed = not self.gallery.ask(Show(picture))
            case Show():
                return self.missed
        return None


class Uploader(Actor):
    def __init__(self, thumbnailer: Ref, visitor: Ref, hasty: bool) -> None:
        super().__init__()
        self.thumbnailer = thumbnailer
        self.visitor = visitor
        self.hasty = hasty

    def on_receive(self, message: Message) -> None:
        if isinstance(message, Upload):
            if self.hasty:
                self.thumbnailer.tell(Put(message.picture, None))
                self.visitor.tell(Look(message.picture))
            else:
                self.thumbnailer.tell(Put(message.picture, self.visitor))


def run(system: System, *, hasty: bool) -> None:
    assert system.simulation is not None
    gallery = system.start(Gallery, name="gallery")
    thumbnailer = system.start(Thumbnailer, gallery, name="thumbnailer")
    visitor = system.start(Visitor, gallery, name="visitor")
    system.start(Uploader, thumbnailer, visitor, hasty, name="uploader").tell(Upload("cat"))
    system.simulation.settle()
    assert not visitor.ask(Show("cat")), "the visitor did not find it"


def test(system: System) -> None:
    run(system, hasty=True)


def corrected(system: System) -> None:
    run(system, hasty=False)
