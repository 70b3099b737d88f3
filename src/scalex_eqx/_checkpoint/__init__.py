from ._api import load as load, save as save
